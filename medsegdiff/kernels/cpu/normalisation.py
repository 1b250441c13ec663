"""Normalisation with its affine map and SiLU in one pass: group norm and batch norm."""

from __future__ import annotations

from typing import Any

from medsegdiff.kernels.cpu.numbers import NUMBERS
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.reference import EPS
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
HEADER = f"#include <omp.h>\n{NUMBERS}"

# A unit is what has statistics of its own: rows of P numbers, `first`, `first + step`, ...; one thread works on it,
# in the same order whatever else is computed. Sums are in float32 over at most 1024 numbers, then in float64, of
# values from which the mean was taken: a norm's gradient is a small difference of large sums. Where float32 overflows,
# and a square does from 2e19, they are taken again in float64.
_SUMS_OF_A_UNIT = """
const double LARGE = 1e37;  // what is larger may have overflowed

template <class Part> double total(const float* in, long first, long step, long rows, long P) {
    double sum = 0;
    for (long k = 0; k < rows; k++)
        for (long j = 0; j < P; j += 1024) {
            const float* x = in + (first + k * step) * P;
            const long end = std::min(j + 1024, P);  // in the loop it would be read anew for each number
            Part part = 0;
            for (long e = j; e < end; e++) part += x[e];
            sum += part;
        }
    return sum;
}

template <class Part>
void moments(const float* in, long first, long step, long rows, long P, float about, double& off, double& squares) {
    off = squares = 0;
    for (long k = 0; k < rows; k++)
        for (long j = 0; j < P; j += 1024) {
            const float* x = in + (first + k * step) * P;
            const long end = std::min(j + 1024, P);
            Part part = 0, square = 0;
            for (long e = j; e < end; e++) {
                const Part d = (Part)x[e] - about;
                part += d;
                square += d * d;
            }
            off += part;
            squares += square;
        }
}
"""

_STATISTICS = """
const long N = in0_shape0, C = in0_shape1, P = in0->num / (N * C);
const long groups = (long)data["groups"];  // 0: batch norm
const long units = groups ? N * groups : C, rows = groups ? C / groups : N, step = groups ? 1 : C;
const double count = (double)rows * P;
#pragma omp parallel for
for (long i = 0; i < units; i++) {
    const long first = groups ? i * rows : i;
    double sum = total<float>(in0_p, first, step, rows, P);
    if (numbers::beyond(sum, LARGE)) sum = total<double>(in0_p, first, step, rows, P);
    float about = sum / count;
    double off, squares;
    moments<float>(in0_p, first, step, rows, P, about, off, squares);
    if (numbers::beyond(squares, LARGE)) moments<double>(in0_p, first, step, rows, P, about, off, squares);
    if (off / count * off > 0.01 * squares) {  // nearly a constant, whose mean was lost to rounding
        about += off / count;
        moments<double>(in0_p, first, step, rows, P, about, off, squares);
    }
    // What `about` lost to rounding is subtracted apart: normed = (x - about) * rstd - rest.
    const double variance = std::max(squares / count - off / count * (off / count), 0.0);
    const float rstd = 1 / std::sqrt(variance + EPS), rest = off / count * rstd;
"""

_FORWARD = (
    _STATISTICS
    + """
    out1_p[2 * i] = about + off / count;
    out1_p[2 * i + 1] = variance;
    for (long k = 0; k < rows; k++) {
        const long row = first + k * step, at = groups ? row : i;
        const float *x = in0_p + row * P, weight = in1_p[at], scale = rstd * weight, bias = in2_p[at] - rest * weight;
        float* y = out0_p + row * P;
        for (long j = 0; j < P; j++) {
            const float z = (x[j] - about) * scale + bias;
            y[j] = SILU ? numbers::silu(z) : z;
        }
    }
}
"""
)

_BACKWARD = (
    _STATISTICS
    + """
    double sum_d = 0, sum_dx = 0, unit_dw = 0, unit_db = 0;
    for (long k = 0; k < rows; k++) {
        const long row = first + k * step, at = groups ? row : i;
        const float *x = in0_p + row * P, *dy = in3_p + row * P, weight = in1_p[at], bias = in2_p[at];
        float* dx = out0_p + row * P;
        double dw = 0, db = 0;
        for (long j = 0; j < P; j += 1024) {
            const long end = std::min(j + 1024, P);
            float part_w = 0, part_b = 0;
            for (long e = j; e < end; e++) {
                const float normed = (x[e] - about) * rstd - rest;
                float d = dy[e];
                if (SILU) d *= numbers::silu_slope(normed * weight + bias);
                part_w += d * normed;
                part_b += d;
                dx[e] = d * weight;
            }
            dw += part_w;
            db += part_b;
        }
        unit_dw += dw;
        unit_db += db;
        sum_d += db * weight;
        sum_dx += dw * weight;
        if (groups) {
            out1_p[row] = dw;
            out2_p[row] = db;
        }
    }
    if (!groups) {
        out1_p[i] = unit_dw;
        out2_p[i] = unit_db;
    }
    const float mean_d = sum_d / count, mean_dx = sum_dx / count;
    for (long k = 0; k < rows; k++) {
        const long row = first + k * step;
        const float* x = in0_p + row * P;
        float* dx = out0_p + row * P;
        for (long j = 0; j < P; j++) dx[j] = rstd * (dx[j] - mean_d - ((x[j] - about) * rstd - rest) * mean_dx);
    }
}
"""
)


class _Norm(Function):
    """Group norm, or batch norm where there are no `groups`; also gives each unit's mean and variance."""

    def __init__(self, groups: int, silu: bool) -> None:
        settings = f"#define EPS {EPS}\n#define SILU {int(silu)}\n"
        self.groups, self.header = groups, f"{HEADER}\n{settings}{_SUMS_OF_A_UNIT}"

    def execute(self, x: Var, weight: Var, bias: Var) -> tuple[Var, Var]:
        self.save(x, weight, bias)
        units = x.shape[0] * self.groups or x.shape[1]
        return tuple(self._code([x.shape, [units, 2]], [x, weight, bias], _FORWARD))

    def grad(self, grad: Var, _: Any) -> list[Var]:
        saved = self.saved()
        return self._code([value.shape for value in saved], [*saved, grad], _BACKWARD)

    def _code(self, shapes: list[Any], inputs: list[Var], source: str) -> list[Var]:
        data = {"groups": float(self.groups)}
        return jt.code(shapes, ["float32"] * len(shapes), inputs, cpu_header=self.header, cpu_src=source, data=data)


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """As in `operations`."""
    return _Norm(groups, silu)(x, weight, bias)[0]


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """As in `operations`."""
    y, statistics = _Norm(0, False)(x, weight, bias)
    statistics = statistics.detach()
    return y, statistics[:, 0], statistics[:, 1]
