"""2-D convolution by oneDNN, named directly.

Jittor finds convolutions by pattern in its fused graph and misses some (a sliced weight, a single
input channel, gradients taken one by one); those fall to a loop a hundred times slower.
"""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import jt, nn

Var = Any  # jt.Var
_LAYOUT = {"xformat": "abcd", "wformat": "oihw", "yformat": "abcd"}


class _Convolution(jt.Function):
    def __init__(self, stride: int, padding: int) -> None:
        self.geometry = (stride, stride, padding, padding, 1, 1, 1)

    def execute(self, x: Var, weight: Var) -> Var:
        self.inputs = x, weight
        return jt.mkl_ops.mkl_conv(x, weight, *self.geometry, **_LAYOUT)

    def grad(self, grad: Var) -> tuple[Var, Var]:
        x, weight = self.inputs
        return (
            jt.mkl_ops.mkl_conv_backward_x(weight, grad, *x.shape[2:], *self.geometry, **_LAYOUT),
            jt.mkl_ops.mkl_conv_backward_w(x, grad, *weight.shape[2:], *self.geometry, **_LAYOUT),
        )


def conv2d(x: Var, weight: Var, bias: Optional[Var] = None, stride: int = 1, padding: int = 0) -> Var:
    """Convolution of `x` (N, C, H, W) by `weight` (O, C, K, K), float32, plus `bias` (O,)."""
    if jt.flags.use_cuda:
        y = precision.narrowed(lambda x, weight: nn.conv2d(x, weight, stride=stride, padding=padding), x, weight)
    else:
        y = _Convolution(stride, padding)(x, weight)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)
