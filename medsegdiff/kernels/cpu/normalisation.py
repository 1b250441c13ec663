"""Normalisation with its affine map and SiLU in one pass: group norm and batch norm."""

from __future__ import annotations

from typing import Any

from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.reference import EPS
from medsegdiff.runtime.backend import Var, jt

NORM = f"#define EPS {EPS}\n{text('numbers.h', 'norm.h')}"
"""`numbers.h` and `norm.h`, for a kernel's header."""
HEADER = f"#include <omp.h>\n{text('numbers.h')}"

_UNITS = """
const long N = in0_shape0, C = in0_shape1, P = in0->num / std::max(1L, N * C);
const long groups = (long)data["groups"];  // 0: batch norm
const long units = groups ? N * groups : C;
#pragma omp parallel for
for (long i = 0; i < units; i++) {
    const norm::Unit unit = groups ? norm::Unit{i * (C / groups), 1, C / groups, P} : norm::Unit{i, C, N, P};
    const norm::Statistics s = norm::statistics(in0_p, unit);
"""

_FORWARD = (
    _UNITS
    + """
    out1_p[2 * i] = s.mean;
    out1_p[2 * i + 1] = s.variance;
    for (long k = 0; k < unit.rows; k++) {
        const long row = unit.row(k), at = (groups ? row : i) % in1->num;
        const norm::Affine affine(s, in1_p[at], in2_p[at]);
        const float* __restrict__ x = in0_p + row * P;
        float* __restrict__ y = out0_p + row * P;
        for (long j = 0; j < P; j++) y[j] = affine.of<WITH_SILU>(x[j]);
    }
}
"""
)

_BACKWARD = (
    _UNITS
    + """
    norm::backward<WITH_SILU>(unit, s, !groups, in0_p, in1_p, in2_p, in1->num, in3_p, out0_p, out1_p, out2_p);
}
"""
)


class _Norm(Function):
    """Group norm, or batch norm where there are no `groups`; also gives each unit's mean and variance."""

    def __init__(self, groups: int, silu: bool) -> None:
        self.groups, self.header = groups, f"#include <omp.h>\n#define WITH_SILU {int(silu)}\n{NORM}"

    def execute(self, x: Var, weight: Var, bias: Var) -> tuple[Var, Var]:
        self.save(x, weight, bias)
        units = x.shape[0] * self.groups or x.shape[1]
        return tuple(self._code([x.shape, [units, 2]], [x, weight, bias], _FORWARD))

    def grad(self, grad: Var, _: Any) -> list[Var]:
        x, weight, bias = self.saved()
        each = x.shape[:2] if self.groups else weight.shape
        dx, dw, db = self._code([x.shape, each, each], [x, weight, bias, grad], _BACKWARD)
        return [dx, *((of_samples(dw, weight), of_samples(db, bias)) if self.groups else (dw, db))]

    def _code(self, shapes: list[Any], inputs: list[Var], source: str) -> list[Var]:
        data = {"groups": float(self.groups)}
        return jt.code(shapes, ["float32"] * len(shapes), inputs, cpu_header=self.header, cpu_src=source, data=data)


def of_samples(gradients: Var, value: Var) -> Var:
    """The gradient of `value` (N, C), or (1, C) for all samples, of those of each sample (N, C)."""
    return gradients if len(gradients) == len(value) else gradients.sum(dim=0, keepdims=True)


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """As in `operations`."""
    return _Norm(groups, silu)(x, weight, bias)[0]


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """As in `operations`."""
    y, statistics = _Norm(0, False)(x, weight, bias)
    statistics = statistics.detach()
    return y, statistics[:, 0], statistics[:, 1]
