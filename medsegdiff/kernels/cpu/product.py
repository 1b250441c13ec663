"""Products of small matrices, each the same whatever else is computed."""

from __future__ import annotations

from typing import Optional

from medsegdiff.kernels.cpu.linear import MATRIX_PRODUCT
from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = f"#include <omp.h>\n{MATRIX_PRODUCT}"
_MIXING = text("lanes.h", "mixing.h")

# in0 and in1 are the matrices, either transposed ('T') or not ('N'); out0 their products. One thread makes one of them.
_SOURCE = """
const long B = in0_shape0, R = out0_shape1, O = out0_shape2, K = {inner};
#pragma omp parallel for
for (long b = 0; b < B; b++)
    dnnl_sgemm('{first}', '{second}', R, O, K, 1, in0_p + b * R * K, in0_shape2, in1_p + b * K * O, in1_shape2, 0,
               out0_p + b * R * O, O);
"""
_MIX = """
mixing::mix(in0_p, in1_p, {bias}, {residual}, {gelu}, in1_shape0, in0_shape0, in0_shape1, in1_shape2, out0_p);
"""
_OTHER = {"N": "T", "T": "N"}


def _product(a: Var, b: Var, first: str, second: str) -> Var:
    inner = 2 if first == "N" else 1
    shape = [a.shape[0], a.shape[3 - inner], b.shape[2 if second == "N" else 1]]
    source = _SOURCE.format(first=first, second=second, inner=f"in0_shape{inner}")
    return jt.code(shape, a.dtype, [a, b], cpu_header=_HEADER, cpu_src=source)


class _Product(Function):
    def __init__(self, kinds: str) -> None:
        self.kinds = kinds

    def execute(self, a: Var, b: Var) -> Var:
        self.save(a, b)
        return _product(a, b, *self.kinds)

    def grad(self, grad: Var) -> tuple[Var, Var]:
        a, b = self.saved()
        first, second = self.kinds
        da = _product(grad, b, "N", _OTHER[second]) if first == "N" else _product(b, grad, second, "T")
        db = _product(a, grad, _OTHER[first], "N") if second == "N" else _product(grad, a, "T", first)
        return da, db


def product(a: Var, b: Var, kinds: str = "NN") -> Var:
    """As in `operations`."""
    return _Product(kinds)(a, b)


def mixed(weight: Var, x: Var, bias: Optional[Var] = None, residual: Optional[Var] = None, gelu: bool = False) -> Var:
    """As in `operations`."""
    shape, given, names = [x.shape[0], weight.shape[0], x.shape[2]], [weight, x], []
    for value in (bias, residual):
        names.append("nullptr" if value is None else f"in{len(given)}_p")
        given += [] if value is None else [value]
    source = _MIX.format(bias=names[0], residual=names[1], gelu=str(gelu).lower())
    return jt.code(shape, x.dtype, given, cpu_header=_MIXING, cpu_src=source)
