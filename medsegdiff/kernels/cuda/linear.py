"""Products of matrices and linear layers by cuBLAS, which transposes as it reads."""

from __future__ import annotations

from typing import Optional

from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import Var, jt


def product(a: Var, b: Var, kinds: str = "NN") -> Var:
    """As in `operations`."""
    multiply = jt.compile_extern.cublas_ops.cublas_batched_matmul
    return precision.narrowed(lambda a, b: multiply(a, b, *(kind == "T" for kind in kinds)), a, b)


def linear(x: Var, weight: Var, bias: Optional[Var] = None) -> Var:
    """As in `operations`."""
    with precision.using("fp32"):
        y = product(x.reshape(1, -1, x.shape[-1]), weight.unsqueeze(0), "NT")
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias
