"""Networks as ONNX graphs, made from weights by name: no framework traces anything.

There are two: `encode` for what depends on the image alone, and `denoise` for each step. What `encode` gives, `denoise`
takes by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

from medsegdiff import __version__
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.finite import broken
from medsegdiff.checkpoints.graph.builder import Builder, Value
from medsegdiff.checkpoints.graph.networks import walk_through
from medsegdiff.config.network import NetworkConfig

OPSET, _IR_VERSION = 18, 8
_MOST_BYTES = (1 << 31) - (1 << 24)  # of weights: protobuf, in which graphs are written, ends at 2 GB
BATCH = "N"
Shapes = Mapping[str, Sequence[Union[str, int]]]


class Graph(Builder):
    """One graph; with `half`, products are of float16 and their weights are stored so."""

    def __init__(self, arrays: Mapping[str, np.ndarray], half: bool) -> None:
        self.arrays, self.half = arrays, half
        self.nodes: list[Any] = []
        self.constants: dict[Value, np.ndarray] = {}
        self._narrowed: dict[Value, Value] = {}
        self._known: dict[Any, Value] = {}

    def weight(self, name: str, shape: Sequence[int], part: slice = slice(None), view: Sequence[int] = ()) -> Value:
        """See `Builder`."""
        array = np.asarray(self.arrays[name], np.float32)
        if part != slice(None):
            array, name = array[:, part], f"{name}[{part.start or 0}:{'' if part.stop is None else part.stop}]"
        self.constants[name] = array.reshape(view or array.shape)
        return name

    def constant(self, array: np.ndarray) -> Value:
        """See `Builder`."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._known)}"
            self.constants[self._known[key]] = array
        return self._known[key]

    def node(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """See `Builder`."""
        from onnx import helper

        number = len(self.nodes)
        names = [f"{kind.lower()}_{number}" + (f"_{index}" if outputs > 1 else "") for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{number}", **attributes))
        return names[0] if outputs == 1 else names

    def product(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """See `Builder`."""
        if not self.half:
            return super().product(kind, *inputs, **attributes)
        return self._cast(self.node(kind, *map(self._narrow, inputs), **attributes), "FLOAT")

    def _narrow(self, value: Value) -> Value:
        if value not in self._narrowed:
            if value in self.constants:
                with np.errstate(over="ignore"):
                    half = self.constants[value].astype(np.float16)
                if found := broken({value: half}):
                    raise InputError(f"as fp16, {found}; use `precision` fp32")
                self.constants[f"{value}:fp16"] = half
                self._narrowed[value] = f"{value}:fp16"
            else:
                self._narrowed[value] = self._cast(value, "FLOAT16")
        return self._narrowed[value]

    def _cast(self, value: Value, kind: str) -> Value:
        from onnx import TensorProto

        return self.node("Cast", value, to=TensorProto.DataType.Value(kind))

    def model(self, name: str, inputs: Sequence[str], outputs: Mapping[str, Value], shapes: Shapes) -> Any:
        """The finished graph (`onnx.ModelProto`): what it takes, the values that it gives by name, all their shapes."""
        from onnx import TensorProto, helper, numpy_helper

        def info(given: str) -> Any:
            kind = TensorProto.INT64 if given == "label" else TensorProto.FLOAT
            return helper.make_tensor_value_info(given, kind, list(shapes[given]))

        renamed = [helper.make_node("Identity", [value], [given]) for given, value in outputs.items()]
        used = {value for node in [*self.nodes, *renamed] for value in node.input}
        held = {value: array for value, array in self.constants.items() if value in used}
        size = sum(array.nbytes for array in held.values())
        if size > _MOST_BYTES:
            raise InputError(f"the weights take {size / 1e9:.1f} GB, and an ONNX graph at most 2; use Jittor")
        constants = [numpy_helper.from_array(array, value) for value, array in held.items()]
        graph = helper.make_graph(
            [*self.nodes, *renamed], name, list(map(info, inputs)), list(map(info, outputs)), constants
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="medsegdiff",
            producer_version=__version__,
        )


def graphs(config: NetworkConfig, arrays: Mapping[str, np.ndarray], half: bool = False) -> dict[str, Any]:
    """The graphs `encode` and `denoise` (`onnx.ModelProto`) of a network with these weights.

    Inputs and outputs are float32 with a free batch size N: `encode` takes `image` (N, C, S, S) in [0, 1] and, with
    class conditioning, `label` (N,), int64; `denoise` takes `mask` (N, M, S, S), the timesteps `t` (N,), or one for
    all, and what `encode` gave but `cal`, and gives `target`, `variance` where it is learned, and `cal` where `encode`
    did not.

    Args:
        config: the network's options
        arrays: its weights by name, of the shapes of `networks.shapes`
        half: compute convolutions, linear layers and attention in float16

    Raises:
        InputError: the weights are more than such a graph can hold, or with `half` larger than float16 can be.
    """
    size, width = config.image_size, config.num_channels
    mask, image = (BATCH, config.mask_channels, size, size), (BATCH, config.image_channels, size, size)
    shapes: Shapes = {
        **{"image": image, "label": (BATCH,), "mask": mask, "t": ("T",)},
        **{"stem": (BATCH, width, size, size), "condition_image": image, "label_embedding": (BATCH, 4 * width)},
        "semantics": (BATCH, config.level_widths[-1], config.deepest_map, config.deepest_map),
        **{"gate": (BATCH, 1, size, size), "half_gate": (BATCH, 1, size // 2, size // 2)},
        **{"target": mask, "variance": mask, "cal": mask},
    }
    encoding, denoising = Graph(arrays, half), Graph(arrays, half)
    condition = walk_through(config, encoding).encode("image", "label")
    taken = [name for name in condition if name != "cal"]
    outputs = walk_through(config, denoising).denoise("mask", "t", {name: name for name in taken})
    images = ["image", "label"] if config.class_cond else ["image"]
    return {
        "encode": encoding.model("encode", images, condition, shapes),
        "denoise": denoising.model("denoise", ["mask", "t", *taken], outputs, shapes),
    }
