"""Sums over the channels of maps, and maps of what was found of them, in float64."""

from __future__ import annotations

from medsegdiff.kernels.cpu.normalisation import HEADER
from medsegdiff.runtime.backend import Var, jt

_SUMS = """
const long N = in0_shape0, C = in0_shape1, P = in0->num / (N * C);
#pragma omp parallel for
for (long c = 0; c < C; c++) {
    double products = 0, plain = 0;
    for (long n = 0; n < N; n++) {
        const float *u = in0_p + (n * C + c) * P, *v = in1_p + (n * C + c) * P;
        for (long j = 0; j < P; j++) {
            products += (double)u[j] * v[j];
            plain += v[j];
        }
    }
    out0_p[c] = products;
    out0_p[C + c] = plain;
}
"""

_MAP = """
const long N = in0_shape0, C = in0_shape1, P = in0->num / (N * C);
#pragma omp parallel for
for (long i = 0; i < N * C; i++) {
    const double a = in2_p[i % C], b = in3_p[i % C], shift = in4_p[i % C];
    for (long j = i * P; j < (i + 1) * P; j++) out0_p[j] = a * in0_p[j] + b * in1_p[j] + shift;
}
"""


def channel_sums(u: Var, v: Var) -> tuple[Var, Var]:
    """As in `operations`."""
    c = u.shape[1]
    sums = jt.code((2 * c,), "float64", [u, v], cpu_header=HEADER, cpu_src=_SUMS)
    return sums[:c], sums[c:]


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """As in `operations`."""
    return jt.code(u.shape, u.dtype, [u, v, a, b, shift], cpu_header=HEADER, cpu_src=_MAP)
