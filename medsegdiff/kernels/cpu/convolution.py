"""2-D convolution by oneDNN, with its bias, a residual and both gradients.

Jittor finds convolutions by pattern in its fused graph, misses some (a sliced weight, a single input channel,
gradients taken one by one), plans each call anew and knows float32 only. Here oneDNN is called directly:
`plans.h` keeps its plans, takes Winograd's F(4x4, 3x3) (Lavin & Gray 2016) where maps are large, and computes
in bfloat16 on demand, with float32 sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from medsegdiff.kernels import precision
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import give_back_memory, jt
from medsegdiff.runtime.toolchain import find_jittor_onednn

Var = Any  # jt.Var
# Jittor finds a compiled kernel by its text, in which the headers' must be.
_HEADERS = "arrays.h", "plans.h", "convolution.h"
_HEADER = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _HEADERS)
_INCLUDE = {f"FLAGS: -I'{find_jittor_onednn().parent.parent / 'include'}' ": 1}

_GEOMETRY = """
const convolution::Geometry g{
    (long)data["samples"], (long)data["inputs"], (long)data["height"], (long)data["width"], (long)data["outputs"],
    (long)data["kernel"], (long)data["stride"], (long)data["padding"], data["low"] != 0,
    data["winograd"] != 0};
"""
_PACK = _GEOMETRY + "convolution::pack(g, in0_p, out0_p, out0->num * sizeof(float));"
_FORWARD = "convolution::{form}(g, in0_p, in1_p, {packed}, {bias}, {rows}, {residual}, out0_p);"
_BACKWARD = "convolution::backward(g, in0_p, in1_p, in2_p, {dx}, out0_p, out1_p);"


def _code(shapes: list[Any], inputs: list[Var], source: str, data: dict[str, float]) -> list[Var]:
    numbers = {name: float(value) for name, value in data.items()}
    results = jt.code(shapes, ["float32"] * len(shapes), inputs, cpu_header=_HEADER, cpu_src=source, data=numbers)
    for result in results:
        result.compile_options = _INCLUDE
    return results


class Packed:
    """A layer's weights in bfloat16 as the last inference took them, in oneDNN's order; kept until they change.

    Once it has taken the weights, it is all that is left of them.
    """

    def __init__(self) -> None:
        self.shape: Optional[tuple[int, ...]] = None
        """Of the weights that were taken; None as long as they are somebody else's."""
        self._taken: Optional[Var] = None
        self.forget()

    def forget(self) -> None:
        """Free them."""
        if self.shape is not None:
            raise RuntimeError("weights that were given up for packed ones cannot be trained")
        self._key: tuple[Any, ...] = ()
        self._value: Optional[Var] = None

    def take(self, weight: Var) -> None:
        """Be the only one who holds these weights: in float32 until they are packed, then in bfloat16."""
        self.shape, self._taken = tuple(weight.shape), weight

    def get(self, weight: Optional[Var], geometry: dict[str, float]) -> Var:
        """`weight`, None for those taken, as a convolution wants it: packed for bfloat16, else as it is."""
        if not geometry["low"]:
            return self._given(weight)
        # A weight that was assigned or updated has another id.
        key = (None if weight is None else weight.id, *(value for name, value in geometry.items() if name != "samples"))
        if self._value is None or key != self._key:
            room = _room(geometry["inputs"]) * _room(geometry["outputs"]) * geometry["kernel"] ** 2 // 2
            self._key, self._value = key, _code([[room]], [self._given(weight)], _PACK, geometry)[0]
            if self._taken is not None:
                # Now, before activations come: else both forms of all weights would be there at once, and the memory
                # of one would be kept for others of its size.
                self._value.sync()
                self._taken = None
                give_back_memory()
        return self._value

    def _given(self, weight: Optional[Var]) -> Var:
        given = self._taken if weight is None else weight
        if given is None:
            raise RuntimeError("weights that were given up for packed ones fit one precision and one size of maps")
        return given


def _room(channels: int) -> int:
    """Channels with oneDNN's padding, which are whole blocks of one of these sizes."""
    return max(-(-channels // block) * block for block in (16, 32, 48, 64))


def _transformed(geometry: dict[str, int]) -> bool:
    """Whether Winograd's transform pays: in float32 it is faster than bfloat16 without it, but not on small maps."""
    wide = geometry["inputs"] >= 32 and geometry["outputs"] >= 32
    shape = geometry["kernel"], geometry["stride"], geometry["padding"]
    return wide and shape == (3, 1, 1) and geometry["height"] * geometry["width"] >= 24 * 24


class _Convolution(Function):
    def __init__(self, stride: int, padding: int, packed: Optional[Packed], biased: bool) -> None:
        self.stride, self.padding, self.packed, self.biased = stride, padding, packed, biased
        self.low = precision.current() == "bf16"

    def execute(self, x: Var, weight: Optional[Var], *others: Var) -> Var:
        n, c, h, w = x.shape
        outputs, _, kernel = (self.packed.shape if weight is None else weight.shape)[:3]
        size = [(length + 2 * self.padding - kernel) // self.stride + 1 for length in (h, w)]
        geometry = {
            "samples": n,
            "inputs": c,
            "height": h,
            "width": w,
            "outputs": outputs,
            "kernel": kernel,
            "stride": self.stride,
            "padding": self.padding,
        }
        geometry["winograd"] = _transformed(geometry)
        geometry["low"] = self.low and not geometry["winograd"]
        self.geometry = geometry
        self.save(x, weight, *others)
        names = [f"in{2 + index}_p" for index in range(len(others))]
        source = _GEOMETRY + _FORWARD.format(
            form="forward" if self.packed is None else "forward_each",
            packed="true" if self.packed is not None and geometry["low"] else "false",
            bias=names[0] if self.biased else "nullptr",
            rows="in2->num / g.outputs" if self.biased else "0",
            residual=names[-1] if len(names) > self.biased else "nullptr",
        )
        factors = weight if self.packed is None else self.packed.get(weight, geometry)
        return _code([[n, outputs, *size]], [x, factors, *others], source, geometry)[0]

    def grad(self, grad: Var) -> list[Optional[Var]]:
        x, weight, *others = self.saved()
        wanted = self.input_mask[0] >= 0  # Jittor's note that x has a gradient
        shapes = [weight.shape, grad.shape[:2], *([x.shape] if wanted else [])]
        source = _GEOMETRY + _BACKWARD.format(dx="out2_p" if wanted else "nullptr")
        dweight, dbias, *dx = _code(shapes, [x, weight, grad], source, self.geometry)
        gradients = [dx[0] if wanted else None, dweight]
        if self.biased:
            gradients.append(dbias if len(others[0].shape) == 2 else dbias.sum(dim=0))
        if len(others) > self.biased:
            gradients.append(grad)
        return gradients


def conv2d(
    x: Var,
    weight: Optional[Var],
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    packed: Optional[Packed] = None,
) -> Var:
    """As in `operations`."""
    others = [value for value in (bias, residual) if value is not None]
    return _Convolution(stride, padding, packed, bias is not None)(x, weight, *others)
