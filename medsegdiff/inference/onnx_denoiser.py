"""A network's ONNX graphs on ONNX Runtime or OpenVINO, as samplers see it: no compiler, and no Jittor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Union

import numpy as np

from medsegdiff.base import machine
from medsegdiff.checkpoints.foreign import fit
from medsegdiff.checkpoints.graph.onnx import graphs
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.diffusion.process import Output
from medsegdiff.inference.backends import RUNTIMES

Condition = dict[str, np.ndarray]  # by the names of the graphs


class OnnxDenoiser:
    """A `Denoiser`: the graphs `encode` and `denoise` of a network, as `checkpoints.graph.onnx` makes them."""

    def __init__(self, config: NetworkConfig, encode: Session, denoise: Session, backend: str) -> None:
        self.backend, self.mask_shape = backend, config.mask_shape
        self._encode, self._denoise = encode, denoise

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


class OnnxRuntime:
    """A graph that is ready to compute, by ONNX Runtime; the precision is the graph's own."""

    def __init__(self, model: Any, inside: str) -> None:
        # Where it is imported it would tell its maker of it, and keep a number for this machine in the user's home.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
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
        """All outputs by name; values that are not inputs are ignored."""
        return dict(zip(self._outputs, self._session.run(None, {name: values[name] for name in self._inputs})))


class OpenVino:
    """The same by OpenVINO, in "fp32" or "bf16" (with AMX, where the processor has it)."""

    def __init__(self, model: Any, inside: str) -> None:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[inside],  # else bf16 wherever there is AMX
            "INFERENCE_NUM_THREADS": machine.usable_cores(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
        self._request = compiled.create_infer_request()
        # It keeps the order of inputs and outputs, and not all of their names.
        self._inputs, self._outputs = (
            [given.name for given in some] for some in (model.graph.input, model.graph.output)
        )

    def run(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `OnnxRuntime.run`."""
        found = self._request.infer([values[name] for name in self._inputs])
        return {name: found[place] for place, name in enumerate(self._outputs)}


Session = Union[OnnxRuntime, OpenVino]
SESSIONS: dict[str, type[Session]] = {"onnx": OnnxRuntime, "openvino": OpenVino}


def load_onnx(weights: Weights, inside: str = "fp32", backend: str = "onnx") -> OnnxDenoiser:
    """The network of trained weights, computing in the precision `inside`.

    Args:
        weights: the weights
        inside: "fp32", of ONNX Runtime also "fp16", of OpenVINO also "bf16"
        backend: "onnx", ONNX Runtime, or "openvino"

    Raises:
        InputError: the weights do not fit their own configuration.
    """
    config = weights.config.network
    arrays, notes = fit(weights.arrays, config, weights.source)
    for line in notes:
        print(f"note: {weights.source}: {line}")
    models, (name, package) = graphs(config, arrays, inside == "fp16"), RUNTIMES[backend]
    encode, denoise = (SESSIONS[backend](models[part], inside) for part in ("encode", "denoise"))
    return OnnxDenoiser(config, encode, denoise, f"{name} {_version(package)}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it is installed by another name, as onnxruntime-gpu
        return import_module(package).__version__
