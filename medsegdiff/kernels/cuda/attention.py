"""Attention of matrix products, which transpose nothing in memory, and a softmax of one launch."""

from __future__ import annotations

from typing import Optional

from medsegdiff.kernels import reference
from medsegdiff.kernels.cuda.linear import product
from medsegdiff.kernels.cuda.sources import source
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = source("softmax")
_ROWS = "const int T = in0_shape2; const long rows = in0->num / T;"


class _Softmax(Function):
    def execute(self, x: Var) -> Var:
        text = f"{_ROWS} fused::softmax_forward(in0_p, out0_p, rows, T);"
        p = jt.code(x.shape, x.dtype, [x], cuda_header=_HEADER, cuda_src=text)
        self.save(p)
        return p

    def grad(self, grad: Var) -> Var:
        (p,) = self.saved()
        text = f"{_ROWS} fused::softmax_backward(in0_p, in1_p, out0_p, rows, T);"
        return jt.code(p.shape, p.dtype, [p, grad], cuda_header=_HEADER, cuda_src=text)


def attention(q: Var, k: Var, v: Var) -> Var:
    """As in `operations`."""
    scores = product(q * q.shape[1] ** -0.5, k, "TN")  # scaled before, or float16 overflows
    return product(v, _Softmax()(scores), "NT")


def spectral_attention(
    query: Var,
    key: Var,
    value: Var,
    size: tuple[int, int],
    heads: int,
    gain: Optional[Var] = None,
    softmax: bool = False,
) -> Var:
    """As in `operations`."""
    return reference.spectral_attention(query, key, value, size, heads, gain, softmax, product)
