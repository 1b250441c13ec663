"""2-D convolution with its bias, a residual and both gradients.

Jittor finds convolutions by pattern in its fused graph, misses some (a sliced weight, a single input channel,
gradients taken one by one), plans each call anew and knows float32 only. Here oneDNN is called directly:
`plans.h` keeps its plans, takes Winograd's F(4x4, 3x3) (Lavin & Gray 2016) where maps are large, and computes
in bfloat16 on demand, with float32 sums. Two ways are ours, where the compiler knows the processor's instructions: with
AMX, `amx.h` and `amx_weights.h` compute those in bfloat16 that keep the size of maps; with AVX-512 alone, `winograd.h`
and `winograd_weights.h` those of the transform, with AVX512-BF16 in bfloat16 too, which is F(2x2, 3x3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Optional

from medsegdiff.base import machine
from medsegdiff.kernels import precision
from medsegdiff.kernels.cpu.normalisation import NORM, of_samples
from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.reference import Norm
from medsegdiff.runtime import onednn
from medsegdiff.runtime.backend import Var, give_back_memory, jt, share_memory
from medsegdiff.runtime.toolchain import find_jittor_onednn

# Jittor finds a compiled kernel by its text, in which the headers' must be.
_WINOGRAD = "winograd_layout.h", "winograd_transforms.h", "winograd.h", "winograd_weights.h"
_HEADERS = "arrays.h", "tiles.h", "maps.h", "plans.h", "amx.h", "amx_weights.h", *_WINOGRAD, "convolution.h"
HEADER = f"{NORM}\n{text(*_HEADERS)}"
"""What defines `convolution::forward` and all that it needs."""
_INCLUDE = {f"FLAGS: -I'{find_jittor_onednn().parent.parent / 'include'}' ": 1}

GEOMETRY = """
const convolution::Geometry g{
    (long)data["samples"], (long)data["inputs"], (long)data["height"], (long)data["width"], (long)data["outputs"],
    (long)data["kernel"], (long)data["stride"], (long)data["padding"], data["low"] != 0,
    data["winograd"] != 0, data["own"] != 0};
"""
"""The geometry `g` of what `geometry_of` found."""
_ROOM = GEOMETRY + "out0_p[0] = (convolution::packed_bytes(g) + sizeof(float) - 1) / sizeof(float);"
_PACK = GEOMETRY + "convolution::pack(g, in0_p, out0_p);"
_NORM = """
const convolution::Norm norm{{
    {weight}_p, {bias}_p, (long){weight}->num, (long)data["groups"], data["silu"] != 0, {statistics}}};
"""
_NO_NORM = "const convolution::Norm norm{};\n"
_FORWARD = """
convolution::forward(g, data["each"] != 0, in0_p, norm, in1_p, data["packed"] != 0, {bias}, {rows}, {residual}, out0_p);
"""
_BACKWARD = "convolution::backward(g, in0_p, norm, in1_p, in2_p, {}, out0_p, out1_p, {}, {});"
_NORM_PARTS = "norm weight", "norm bias"


def run_code(
    shapes: list[Any],
    inputs: list[Var],
    source: str,
    data: dict[str, float],
    header: str = HEADER,
    dtype: str = "float32",
) -> list[Var]:
    """The arrays that `source`, which may call oneDNN, makes of `inputs`."""
    numbers = {name: float(value) for name, value in data.items()}
    results = jt.code(shapes, [dtype] * len(shapes), inputs, cpu_header=header, cpu_src=source, data=numbers)
    for result in results:
        result.compile_options = _INCLUDE
    return results


class Packed:
    """A layer's weights as the last inference took them, in bfloat16 and in oneDNN's order; kept until they change.

    Once it has taken the weights, it is all that is left of them. Then they are packed in float32 too, but not for
    Winograd's transform, which makes four times as much of them.
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
        """Take over these weights, unchanged until they are packed."""
        self.shape, self._taken = tuple(weight.shape), weight

    def packs(self, geometry: dict[str, float]) -> bool:
        """Whether a convolution gets packed weights."""
        return bool(geometry["low"] or (self.shape is not None and not geometry["winograd"]))

    def get(self, weight: Optional[Var], geometry: dict[str, float]) -> Var:
        """`weight`, None for those taken, as a convolution wants it: packed, or as it is."""
        if not self.packs(geometry):
            return self._given(weight)
        # A weight that was assigned or updated has another id.
        key = (None if weight is None else weight.id, *(value for name, value in geometry.items() if name != "samples"))
        if self._value is None or key != self._key:
            shape = [packed_size(**{**geometry, "samples": 1})]
            self._key, self._value = key, run_code([shape], [self._given(weight)], _PACK, geometry)[0]
            if self._taken is not None:
                # Now, before activations come, or both forms of all weights would be there at once. Nothing else now:
                # Jittor fuses what it computes together, and the first masks would be rounded otherwise than the next.
                # Not of the memory that activations share.
                with jt.flag_scope(use_sfrl_allocator=0):
                    self._value.sync(False, False)
                self._taken = None
                give_back_memory()
                share_memory()
        return self._value

    def _given(self, weight: Optional[Var]) -> Var:
        given = self._taken if weight is None else weight
        if given is None:
            raise RuntimeError("weights that were given up for packed ones fit one precision and one size of maps")
        return given


@cache
def packed_size(**geometry: int) -> int:
    """Numbers of 32 bits that packed weights take."""
    (size,) = run_code([[1]], [], _ROOM, geometry, dtype="int32")
    size.sync(False, False)  # nothing else, as above
    return int(size.numpy()[0])


def _has_winograd() -> bool:
    """Whether the transform is that of `winograd.h`. Where there is AMX all stays as it was measured there."""
    return "avx512f" in machine.cpu().flags and not onednn.has_amx()


def _has_low_winograd() -> bool:
    """Whether it has the transform in bfloat16, too."""
    return "avx512_bf16" in machine.cpu().flags and _has_winograd()


def _transformed(geometry: dict[str, int], least: int) -> bool:
    """Whether Winograd's transform pays on maps of at least so many pixels across."""
    wide = geometry["inputs"] >= 32 and geometry["outputs"] >= 32
    shape = geometry["kernel"], geometry["stride"], geometry["padding"]
    return wide and shape == (3, 1, 1) and geometry["height"] * geometry["width"] >= least**2


def geometry_of(
    shape: tuple[int, int, int, int], outputs: int, kernel: int, stride: int, padding: int, low: bool
) -> dict[str, int]:
    """What a convolution of maps of this shape is, and how it is computed; `low`: in bfloat16 where that pays."""
    geometry = dict(zip(("samples", "inputs", "height", "width"), shape))
    geometry.update(outputs=outputs, kernel=kernel, stride=stride, padding=padding)
    large = _transformed(geometry, 16 if _has_winograd() and not low else 24)
    geometry["low"] = low and not (large and precision.of_large_maps() == "fp32")
    low_winograd = geometry["low"] and _has_low_winograd() and _transformed(geometry, 8)
    geometry["winograd"] = low_winograd or (large and not geometry["low"])
    keeps_size = stride == 1 and kernel == 2 * padding + 1 <= 3
    by_amx = geometry["low"] and keeps_size and onednn.has_amx()
    geometry["own"] = by_amx or (geometry["winograd"] and _has_winograd())
    return geometry


class _Convolution(Function):
    """Of x, the weights, and then whatever of `parts` there is: bias, residual, the norm's weight and bias."""

    def __init__(
        self, stride: int, padding: int, packed: Optional[Packed], parts: Sequence[str], norm: Optional[Norm]
    ) -> None:
        self.stride, self.padding, self.packed, self.parts = stride, padding, packed, parts
        self.norm = {} if norm is None else {"groups": norm.groups, "silu": norm.silu}
        self.low = precision.current() == "bf16"

    def execute(self, x: Var, weight: Optional[Var], *others: Var) -> Var:
        n, c, h, w = x.shape
        outputs, _, kernel = (self.packed.shape if weight is None else weight.shape)[:3]
        self.geometry = geometry = geometry_of((n, c, h, w), outputs, kernel, self.stride, self.padding, self.low)
        size = [(length + 2 * self.padding - kernel) // self.stride + 1 for length in (h, w)]
        named = {name: f"in{2 + index}" for index, name in enumerate(self.parts)}
        source = self._norm_source(named, "out1_p") + _FORWARD.format(
            bias="in2_p" if "bias" in named else "nullptr",
            rows="in2->num / g.outputs" if "bias" in named else "0",
            residual=f"{named['residual']}_p" if "residual" in named else "nullptr",
        )
        factors = weight if self.packed is None else self.packed.get(weight, geometry)
        inference = self.packed is not None
        packed = inference and self.packed.packs(geometry)
        shapes = [[n, outputs, *size], *([[n, self.norm["groups"], 3]] if self.norm else [])]
        y, *statistics = self._run(shapes, [x, factors, *others], source, each=inference, packed=packed)
        given = dict(zip(self.parts, others))
        self.bias_of_each = "bias" in given and len(given["bias"].shape) == 2
        self.save(x, weight, *(given[name] for name in _NORM_PARTS if self.norm), *statistics)
        return y

    def grad(self, grad: Var) -> list[Optional[Var]]:
        x, weight, *normed = self.saved()  # and the norm's weight, bias and statistics
        learns = self.input_mask[0] >= 0  # Jittor's note that x has a gradient
        wanted = [x.shape, *[x.shape[:2]] * len(normed[:2])] if learns or normed else []
        names = [f"out{2 + index}_p" if index < len(wanted) else "nullptr" for index in range(3)]
        source = self._norm_source(dict(zip(_NORM_PARTS, ("in3", "in4"))), "in5_p") + _BACKWARD.format(*names)
        shapes = [weight.shape, grad.shape[:2], *wanted]
        dweight, dbias, *others = self._run(shapes, [x, weight, grad, *normed], source)
        of_norm = (of_samples(d, value) for d, value in zip(others[1:], normed))
        gradients = {"residual": grad, **dict(zip(_NORM_PARTS, of_norm))}
        gradients["bias"] = dbias if self.bias_of_each else dbias.sum(dim=0)
        return [others[0] if wanted else None, dweight, *(gradients[name] for name in self.parts)]

    def _run(self, shapes: list[Any], inputs: list[Var], source: str, **more: float) -> list[Var]:
        return run_code(shapes, inputs, GEOMETRY + source, {**self.geometry, **self.norm, **more})

    def _norm_source(self, named: dict[str, str], statistics: str) -> str:
        if not self.norm:
            return _NO_NORM
        weight, bias = (named[name] for name in _NORM_PARTS)
        return _NORM.format(weight=weight, bias=bias, statistics=statistics)


def conv2d(
    x: Var,
    weight: Optional[Var],
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    packed: Optional[Packed] = None,
    norm: Optional[Norm] = None,
) -> Var:
    """As in `operations`."""
    parts = {"bias": bias, "residual": residual}
    if norm is not None:
        parts.update(zip(_NORM_PARTS, norm[:2]))
    parts = {name: value for name, value in parts.items() if value is not None}
    return _Convolution(stride, padding, packed, list(parts), norm)(x, weight, *parts.values())
