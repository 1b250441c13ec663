"""Softmax attention through oneDNN's matrix product, without transposing anything in memory."""

from __future__ import annotations

from medsegdiff.kernels.cpu.linear import MATRIX_PRODUCT
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = f"#include <cmath>\n#include <omp.h>\n{MATRIX_PRODUCT}"

# q, k, v are in0..in2 (B, D, T); out0 the result (B, D, T), out1 the probabilities (B, T, T).
_FORWARD = """
const long B = in0_shape0, D = in0_shape1, T = in0_shape2;
const float scale = 1 / std::sqrt((float)D);
for (long b = 0; b < B; b++) {
    const float *q = in0_p + b * D * T, *k = in1_p + b * D * T, *v = in2_p + b * D * T;
    float* p = out1_p + b * T * T;
    dnnl_sgemm('T', 'N', T, T, D, scale, q, T, k, T, 0, p, T);
    #pragma omp parallel for
    for (long t = 0; t < T; t++) {
        float *row = p + t * T, top = row[0], sum = 0;
        for (long s = 0; s < T; s++) top = std::max(top, row[s]);
        for (long s = 0; s < T; s++) sum += row[s] = std::exp(row[s] - top);
        for (long s = 0; s < T; s++) row[s] /= sum;
    }
    dnnl_sgemm('N', 'T', D, T, T, 1, v, T, p, T, 0, out0_p + b * D * T, T);
}
"""

# in3 are the probabilities, in4 the result's gradient; out0..out2 those of q, k, v; out3 is scratch.
_BACKWARD = """
const long B = in0_shape0, D = in0_shape1, T = in0_shape2;
const float scale = 1 / std::sqrt((float)D);
float* ds = out3_p;
for (long b = 0; b < B; b++) {
    const float *q = in0_p + b * D * T, *k = in1_p + b * D * T, *v = in2_p + b * D * T;
    const float *p = in3_p + b * T * T, *dy = in4_p + b * D * T;
    dnnl_sgemm('N', 'N', D, T, T, 1, dy, T, p, T, 0, out2_p + b * D * T, T);
    dnnl_sgemm('T', 'N', T, T, D, 1, dy, T, v, T, 0, ds, T);
    #pragma omp parallel for
    for (long t = 0; t < T; t++) {
        const float* prob = p + t * T;
        float *row = ds + t * T, dot = 0;
        for (long s = 0; s < T; s++) dot += prob[s] * row[s];
        for (long s = 0; s < T; s++) row[s] = prob[s] * (row[s] - dot) * scale;
    }
    dnnl_sgemm('N', 'T', D, T, T, 1, k, T, ds, T, 0, out0_p + b * D * T, T);
    dnnl_sgemm('N', 'N', D, T, T, 1, q, T, ds, T, 0, out1_p + b * D * T, T);
}
"""


class _Attention(Function):
    def execute(self, q: Var, k: Var, v: Var) -> Var:
        tokens = q.shape[2]
        y, probabilities = jt.code(
            [q.shape, [q.shape[0], tokens, tokens]], [q.dtype] * 2, [q, k, v], cpu_header=_HEADER, cpu_src=_FORWARD
        )
        self.save(q, k, v, probabilities)
        return y

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        saved = self.saved()
        q, tokens = saved[0], saved[0].shape[2]
        dq, dk, dv, _ = jt.code(
            [q.shape] * 3 + [[tokens, tokens]], [q.dtype] * 4, [*saved, grad], cpu_header=_HEADER, cpu_src=_BACKWARD
        )
        return dq, dk, dv


def attention(q: Var, k: Var, v: Var) -> Var:
    """As in `operations`."""
    return _Attention()(q, k, v)
