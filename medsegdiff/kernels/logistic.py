"""The logistic function, exact to float32 everywhere; Jittor's own ends at -30 and takes NaN for 0."""

from __future__ import annotations

from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt


class _Sigmoid(Function):
    def execute(self, x: Var) -> Var:
        e = jt.exp(-jt.abs(x))  # never overflows, so nothing is divided by infinity
        y = jt.where(x < 0, e, jt.ones_like(e)) / (1 + e)
        self.save(y)
        return y

    def grad(self, grad: Var) -> Var:
        (y,) = self.saved()
        return grad * y * (1 - y)


def sigmoid(x: Var) -> Var:
    """`1 / (1 + exp(-x))` of float32 of any shape, in [0, 1]; NaN stays NaN."""
    return _Sigmoid()(x)
