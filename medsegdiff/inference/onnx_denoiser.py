"""A network on ONNX Runtime, as samplers see it: no compiler, and no Jittor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from medsegdiff.base import machine
from medsegdiff.checkpoints.foreign import fit
from medsegdiff.checkpoints.graph.onnx import graphs
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.diffusion.process import Output

Condition = dict[str, np.ndarray]  # by the names of the graphs


class OnnxDenoiser:
    """A `Denoiser`: the graphs `encode` and `denoise` of a network, as `checkpoints.graph.onnx` makes them."""

    def __init__(self, config: NetworkConfig, models: Mapping[str, Any]) -> None:
        self.config = config
        self._encode, self._denoise = _Session(models["encode"]), _Session(models["denoise"])

    @property
    def backend(self) -> str:
        """See `Denoiser`."""
        return f"ONNX Runtime {version('onnxruntime')}"

    @property
    def mask_shape(self) -> tuple[int, int, int]:
        """(M, S, S), see `Denoiser`."""
        return self.config.mask_channels, self.config.image_size, self.config.image_size

    def encode(self, images: np.ndarray) -> Condition:
        """What depends on the images (N, C, S, S) alone."""
        return self._encode.run({"image": images})

    def gather(self, parts: Sequence[Condition], rows: Sequence[int]) -> Condition:
        """The rows `rows` of all the parts' rows."""
        return {name: np.concatenate([part[name] for part in parts])[list(rows)] for name in parts[0]}

    def denoise(self, mask_t: np.ndarray, t: float, condition: Condition) -> Output:
        """What the network says of masks (N, M, S, S)."""
        # One timestep for all rows: that part of the network is then computed alike in batches of any size.
        found = {**condition, **self._denoise.run({"mask": mask_t, "t": np.float32([t]), **condition})}
        return Output(found["target"], found.get("variance"), found["cal"])


class _Session:
    def __init__(self, model: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = machine.usable_cores()
        options.log_severity_level = 3  # errors
        # Threads that spin while they wait take half as much time again, and are slower beside other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._outputs = [given.name for given in self._session.get_outputs()]

    def run(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; values that are no input are passed over."""
        return dict(zip(self._outputs, self._session.run(None, {name: values[name] for name in self._inputs})))


def load_onnx(weights: Weights, inside: str = "fp32") -> OnnxDenoiser:
    """The network of trained weights, computing in the precision `inside` ("fp32" or "fp16").

    Raises:
        InputError: the weights do not fit their own configuration.
    """
    config = weights.config.network
    arrays, notes = fit(weights.arrays, config, weights.source)
    for line in notes:
        print(f"note: {weights.source}: {line}")
    return OnnxDenoiser(config, graphs(config, arrays, inside == "fp16"))
