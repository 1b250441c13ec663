"""Normalisation with its affine map and SiLU in one pass: group norm, and batch norm by way of it."""

from __future__ import annotations

from typing import Any

from medsegdiff.runtime import processes
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
EPS = 1e-5
_HEADER = "#include <cmath>\n#include <omp.h>"

# One group of one sample is the unit of parallel work: it fits the cache. Statistics are in double
# precision, and computed again on the way back: a norm's gradient is a small difference of large sums.
_STATISTICS = """
const long N = in0_shape0, C = in0_shape1, G = {groups}, D = C / G, P = in0->num / (N * C);
#pragma omp parallel for
for (long i = 0; i < N * G; i++) {{
    const float* x = in0_p + i * D * P;
    double sum = 0, squares = 0;
    for (long j = 0; j < D * P; j++) sum += x[j];
    const double mean = sum / (D * P);
    for (long j = 0; j < D * P; j++) squares += (x[j] - mean) * (x[j] - mean);
    const double rstd = 1 / std::sqrt(squares / (D * P) + {eps});
"""

_FORWARD = (
    _STATISTICS
    + """
    float* y = out0_p + i * D * P;
    for (long c = 0; c < D; c++) {{
        const double scale = in1_p[i * D + c] * rstd, bias = in2_p[i * D + c];
        for (long j = c * P; j < (c + 1) * P; j++) {{
            const float z = (x[j] - mean) * scale + bias;
            y[j] = {silu} ? z / (1 + std::exp(-z)) : z;
        }}
    }}
}}
"""
)

_BACKWARD = (
    _STATISTICS
    + """
    const float* dy = in3_p + i * D * P;
    float* dx = out0_p + i * D * P;
    double sum_d = 0, sum_dx = 0;
    for (long c = 0; c < D; c++) {{
        const float weight = in1_p[i * D + c], bias = in2_p[i * D + c];
        double dw = 0, db = 0;
        for (long j = c * P; j < (c + 1) * P; j++) {{
            const double normed = (x[j] - mean) * rstd;
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
        sum_d += db * weight;
        sum_dx += dw * weight;
    }}
    const double mean_d = sum_d / (D * P), mean_dx = sum_dx / (D * P);
    for (long j = 0; j < D * P; j++) dx[j] = rstd * (dx[j] - mean_d - (x[j] - mean) * rstd * mean_dx);
}}
"""
)


class _GroupNorm(jt.Function):
    def __init__(self, groups: int, silu: bool) -> None:
        self.options = {"groups": groups, "eps": EPS, "silu": int(silu)}

    def execute(self, x: Var, weight: Var, bias: Var) -> Var:
        self.saved = [x, weight, bias]
        return jt.code(x.shape, x.dtype, self.saved, cpu_header=_HEADER, cpu_src=_FORWARD.format(**self.options))

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        return tuple(
            jt.code(
                [value.shape for value in self.saved],
                [value.dtype for value in self.saved],
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


def batch_norm(x: Var, weight: Var, bias: Var) -> Var:
    """`x` (N, C, H, W) normalised by its own batch (Ioffe & Szegedy 2015, eps 1e-5); `weight`, `bias` (C,).

    With batch and channels swapped, a batch norm is a group norm whose groups are the channels.
    """
    n, c, h, w = x.shape
    swapped = x.transpose(1, 0, 2, 3).reshape(1, c, n * h, w)
    y = group_norm(swapped, weight.unsqueeze(0), bias.unsqueeze(0), groups=c)
    return y.reshape(c, n, h, w).transpose(1, 0, 2, 3)


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
    """The sums (C,), float64, of `u * v` and of `v` over all but the channels; both (N, C, H, W) float32."""
    c = u.shape[1]
    if not jt.flags.use_cuda:
        sums = jt.code((2 * c,), "float64", [u, v], cpu_header=_HEADER, cpu_src=_SUMS)
        return sums[:c], sums[c:]
    wide = v.float64()
    return (u.float64() * wide).sum((0, 2, 3)), wide.sum((0, 2, 3))


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """`a * u + b * v + shift`, float32: `u`, `v` (N, C, H, W) float32, the others (C,) float64."""
    if not jt.flags.use_cuda:
        return jt.code(u.shape, u.dtype, [u, v, a, b, shift], cpu_header=_HEADER, cpu_src=_MAP)
    a, b, shift = (value.reshape(1, -1, 1, 1) for value in (a, b, shift))
    return (a * u + b * v + shift).float32()


def _joint_means(x: Var, *sums: Var) -> list[Var]:
    """Sums (C,) over the channels of `x`, as means over those of all processes, whose shapes are one."""
    count = x.numel() // x.shape[1] * processes.count()
    return jt.chunk(processes.total(jt.concat(sums)) / count, len(sums))


def joint_moments(x: Var) -> tuple[Var, Var]:
    """Mean and variance (C,), float64, of the channels of `x` (N, C, H, W) float32 in all processes."""
    with jt.no_grad():
        # Float64 has digits enough for the difference of squares of what was float32.
        squares, mean = _joint_means(x, *channel_sums(x, x))
        return mean, jt.maximum(squares - mean * mean, jt.zeros_like(mean))


def joint_batch_norm(x: Var, weight: Var, bias: Var, mean: Var, variance: Var) -> Var:
    """`batch_norm` of a batch that several processes share; `mean` and `variance` are its `joint_moments`."""
    return _JointBatchNorm(mean, variance)(x, weight, bias)


class _JointBatchNorm(jt.Function):
    """The moments move with `x`, so its gradient takes in what all processes feel; other gradients are one's own."""

    def __init__(self, mean: Var, variance: Var) -> None:
        self.mean, self.rstd = mean, 1 / jt.sqrt(variance + EPS)

    def execute(self, x: Var, weight: Var, bias: Var) -> Var:
        self.x, self.scale = x, weight.float64() * self.rstd
        return channel_map(x, x, self.scale, jt.zeros_like(self.scale), bias.float64() - self.mean * self.scale)

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        products, dbias = channel_sums(self.x, grad)
        dweight = (products - self.mean * dbias) * self.rstd
        along, mean = _joint_means(self.x, dweight, dbias)
        tilt = -self.scale * self.rstd * along
        dx = channel_map(grad, self.x, self.scale, tilt, -self.scale * mean - tilt * self.mean)
        return dx, dweight.float32(), dbias.float32()


def group_norm_reference(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """`group_norm` as a plain Jittor expression."""
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, -1)
    centred = grouped - grouped.mean(dim=2, keepdims=True)
    variance = (centred * centred).mean(dim=2, keepdims=True)
    normed = (centred / jt.sqrt(variance + EPS)).reshape(n, c, h, w)
    z = normed * weight.reshape(n, c, 1, 1) + bias.reshape(n, c, 1, 1)
    return z * jt.sigmoid(z) if silu else z
