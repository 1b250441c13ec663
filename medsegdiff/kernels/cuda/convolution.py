"""Convolution by cuDNN with its bias and residual, forward and backward an operation each."""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.kernels import precision
from medsegdiff.kernels.cuda.normalisation import group_norm
from medsegdiff.kernels.cuda.sources import CONVOLUTION, source
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.reference import Norm
from medsegdiff.runtime.backend import Var, jt

_HEADER = source(*CONVOLUTION)
_SHAPE = """
const fused::Shape shape{{(int)in0_shape0, (int)in0_shape1, (int)in0_shape2, (int)in0_shape3, (int)in1_shape0,
                         (int)in1_shape2, (int)in1_shape3, {stride}, {padding}}};
"""
_FORWARD = _SHAPE + "fused::convolution_forward(shape, fused::{kind}, in0_p, in1_p, {bias}, {residual}, out0_p);"
_BACKWARD = _SHAPE + "fused::convolution_backward(shape, fused::{kind}, in0_p, in1_p, in2_p, out0_p, out1_p, {bias});"


class _Convolution(Function):
    def __init__(self, stride: int, padding: int, bias: bool, residual: bool) -> None:
        self.values = {"stride": stride, "padding": padding, "kind": precision.current().upper()}
        self.bias, self.residual = bias, residual

    def execute(self, x: Var, weight: Var, *added: Var) -> Var:
        n, _, h, w = x.shape
        k, _, *kernel = weight.shape
        stride, padding = self.values["stride"], self.values["padding"]
        rise, run = ((side + 2 * padding - own) // stride + 1 for side, own in zip((h, w), kernel))
        self.save(x, weight, *added[: int(self.bias)])
        return self._code(
            [(n, k, rise, run)],
            [x, weight, *added],
            _FORWARD,
            "in2_p, in2->num" if self.bias else "nullptr, 1",
            f"in{1 + len(added)}_p" if self.residual else "nullptr",
        )[0]

    def grad(self, grad: Var) -> list[Var]:
        x, weight, *bias = self.saved()
        shapes = [value.shape for value in (x, weight, *bias)]
        text = "out2_p, out2->num" if bias else "nullptr, 1"
        return [*self._code(shapes, [x, weight, grad], _BACKWARD, text), *[grad] * self.residual]

    def _code(self, shapes: list[Any], inputs: list[Var], text: str, bias: str, residual: str = "") -> list[Var]:
        text = text.format(**self.values, bias=bias, residual=residual)
        return jt.code(shapes, ["float32"] * len(shapes), inputs, cuda_header=_HEADER, cuda_src=text)


def conv2d(
    x: Var,
    weight: Var,
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    packed: Any = None,
    norm: Optional[Norm] = None,
) -> Var:
    """As in `operations`; nothing is `packed`, and a `norm` is a launch of its own."""
    if norm is not None:
        x = group_norm(x, *norm)
    added = [value for value in (bias, residual) if value is not None]
    kernel = weight if len(weight.shape) == 4 else weight.unsqueeze(3)
    return _Convolution(stride, padding, bias is not None, residual is not None)(x, kernel, *added)
