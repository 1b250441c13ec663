"""The matrix product of linear layers."""

from __future__ import annotations

from typing import Any

from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var


def matmul(a: Var, b: Var) -> Var:
    """The product (N, M) of `a` (N, K) and `b` (K, M), float32; on the CPU in float32 inside too, being small."""
    return precision.narrowed(jt.matmul, a, b) if jt.flags.use_cuda else jt.matmul(a, b)
