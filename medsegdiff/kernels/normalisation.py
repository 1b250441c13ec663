"""Group normalisation with an affine map per sample and channel, and SiLU, in one pass."""

from __future__ import annotations

from typing import Any

from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
EPS = 1e-5
_HEADER = "#include <cmath>\n#include <omp.h>"

# One group of one sample is the unit of parallel work: it fits the cache and is read twice.
_FORWARD = """
const long N = in0_shape0, C = in0_shape1, G = {groups}, D = C / G, P = in0->num / (N * C);
#pragma omp parallel for
for (long i = 0; i < N * G; i++) {{
    const float* x = in0_p + i * D * P;
    float* y = out0_p + i * D * P;
    float sum = 0, squares = 0;
    for (long j = 0; j < D * P; j++) sum += x[j];
    const float mean = sum / (D * P);
    for (long j = 0; j < D * P; j++) squares += (x[j] - mean) * (x[j] - mean);
    const float rstd = 1 / std::sqrt(squares / (D * P) + {eps}f);
    out1_p[2 * i] = mean;
    out1_p[2 * i + 1] = rstd;
    for (long c = 0; c < D; c++) {{
        const float scale = in1_p[i * D + c] * rstd, shift = in2_p[i * D + c] - mean * scale;
        for (long j = c * P; j < (c + 1) * P; j++) {{
            const float z = x[j] * scale + shift;
            y[j] = {silu} ? z / (1 + std::exp(-z)) : z;
        }}
    }}
}}
"""

_BACKWARD = """
const long N = in0_shape0, C = in0_shape1, G = {groups}, D = C / G, P = in0->num / (N * C);
#pragma omp parallel for
for (long i = 0; i < N * G; i++) {{
    const float *x = in0_p + i * D * P, *dy = in4_p + i * D * P;
    float* dx = out0_p + i * D * P;
    const float mean = in3_p[2 * i], rstd = in3_p[2 * i + 1];
    float mean_d = 0, mean_dx = 0;
    for (long c = 0; c < D; c++) {{
        const float weight = in1_p[i * D + c], bias = in2_p[i * D + c];
        float dw = 0, db = 0;
        for (long j = c * P; j < (c + 1) * P; j++) {{
            const float normed = (x[j] - mean) * rstd;
            float d = dy[j];
            if ({silu}) {{
                const float z = normed * weight + bias, s = 1 / (1 + std::exp(-z));
                d *= s * (1 + z * (1 - s));
            }}
            dw += d * normed;
            db += d;
            dx[j] = d * weight;
        }}
        out1_p[i * D + c] = dw;
        out2_p[i * D + c] = db;
        mean_d += db * weight;
        mean_dx += dw * weight;
    }}
    mean_d /= D * P;
    mean_dx /= D * P;
    for (long j = 0; j < D * P; j++) dx[j] = rstd * (dx[j] - mean_d - (x[j] - mean) * rstd * mean_dx);
}}
"""


class _GroupNorm(jt.Function):
    def __init__(self, groups: int, silu: bool) -> None:
        self.groups = groups
        self.options = {"groups": groups, "eps": EPS, "silu": int(silu)}

    def execute(self, x: Var, weight: Var, bias: Var) -> Var:
        y, statistics = jt.code(
            [x.shape, [x.shape[0], self.groups, 2]],
            [x.dtype, x.dtype],
            [x, weight, bias],
            cpu_header=_HEADER,
            cpu_src=_FORWARD.format(**self.options),
        )
        self.saved = [x, weight, bias, statistics]
        return y

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        x, weight, bias, _ = self.saved
        return tuple(
            jt.code(
                [x.shape, weight.shape, bias.shape],
                [x.dtype] * 3,
                [*self.saved, grad],
                cpu_header=_HEADER,
                cpu_src=_BACKWARD.format(**self.options),
            )
        )


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """Group normalisation (Wu & He 2018, eps 1e-5), affine map and, on demand, SiLU.

    Args:
        x: (N, C, H, W) float32
        weight: (N, C), what the normalised map is multiplied by
        bias: (N, C), what is added then
        groups: number of groups, a divisor of C
        silu: apply `z * sigmoid(z)` to the result
    """
    if not jt.flags.use_cuda:
        return _GroupNorm(groups, silu)(x, weight, bias)
    return group_norm_reference(x, weight, bias, groups, silu)


def group_norm_reference(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """`group_norm` as a plain Jittor expression."""
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, -1)
    centred = grouped - grouped.mean(dim=2, keepdims=True)
    variance = (centred * centred).mean(dim=2, keepdims=True)
    normed = (centred / jt.sqrt(variance + EPS)).reshape(n, c, h, w)
    z = normed * weight.reshape(n, c, 1, 1) + bias.reshape(n, c, 1, 1)
    return z * jt.sigmoid(z) if silu else z
