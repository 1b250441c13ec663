"""Convolution by cuDNN; its bias and residual by one launch, and the bias's gradient by one."""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.kernels import reference
from medsegdiff.kernels.cuda.sources import source
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
_HEADER = source("addition")
_FORWARD = """
const int rows = in0_shape0 * in0_shape1, P = in0->num / rows;
fused::bias_forward(in0_p, in1_p, {residual}, out0_p, rows, P, in1->num);
"""
_BACKWARD = """
const int rows = in0_shape0 * in0_shape1, P = in0->num / rows;
fused::bias_backward(in0_p, out0_p, rows, P, out0->num);
"""


class _Addition(Function):
    def execute(self, x: Var, bias: Var, *residual: Var) -> Var:
        self.save(bias)
        self.count = len(residual)
        text = _FORWARD.format(residual="in2_p" if residual else "nullptr")
        return jt.code(x.shape, x.dtype, [x, bias, *residual], cuda_header=_HEADER, cuda_src=text)

    def grad(self, grad: Var) -> list[Var]:
        (bias,) = self.saved()
        dbias = jt.code(bias.shape, bias.dtype, [grad], cuda_header=_HEADER, cuda_src=_BACKWARD)
        return [grad, dbias] + [grad] * self.count


def conv2d(
    x: Var,
    weight: Var,
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    packed: Any = None,
) -> Var:
    """As in `operations`; nothing is `packed`."""
    y = reference.conv2d(x, weight, None, stride, padding, None if bias is not None else residual)
    if bias is None:
        return y
    return _Addition()(y, bias, *([] if residual is None else [residual]))
