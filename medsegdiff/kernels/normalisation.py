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


def joint_moments(x: Var) -> tuple[Var, Var]:
    """Mean and variance (C,), float64, of the channels of `x` (N, C, H, W) in all processes, whose shapes are one."""
    n, c, h, w = x.shape
    with jt.no_grad():
        wide = x.float64()
        sums = processes.total(jt.concat([wide.sum((0, 2, 3)), (wide * wide).sum((0, 2, 3))]))
        means = sums / (n * h * w * processes.count())
        return means[:c], jt.maximum(means[c:] - means[:c] * means[:c], 0)


def joint_batch_norm(x: Var, weight: Var, bias: Var, mean: Var, variance: Var) -> Var:
    """`batch_norm` of a batch that several processes share; `mean` and `variance` are its `joint_moments`."""
    return _JointBatchNorm(mean, variance)(x, weight, bias)


class _JointBatchNorm(jt.Function):
    """The moments move with `x`, so its gradient takes in what all processes feel; other gradients are one's own."""

    def __init__(self, mean: Var, variance: Var) -> None:
        shape = (1, -1, 1, 1)
        self.mean, self.rstd = mean.reshape(shape), (1 / jt.sqrt(variance + EPS)).reshape(shape)

    def execute(self, x: Var, weight: Var, bias: Var) -> Var:
        self.x, self.weight = x, weight.reshape(1, -1, 1, 1)
        return (self._normed() * self.weight + bias.reshape(1, -1, 1, 1)).float32()

    def _normed(self) -> Var:
        return (self.x - self.mean) * self.rstd

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        n, c, h, w = grad.shape
        wide, normed = grad.float64(), self._normed()
        own = jt.concat([(wide * normed).sum((0, 2, 3)), wide.sum((0, 2, 3))])
        means = processes.total(own) / (n * h * w * processes.count())
        along, shift = means[:c].reshape(1, -1, 1, 1), means[c:].reshape(1, -1, 1, 1)
        dx = (wide - shift - normed * along) * (self.weight * self.rstd)
        return dx.float32(), own[:c].float32(), own[c:].float32()


def group_norm_reference(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """`group_norm` as a plain Jittor expression."""
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, -1)
    centred = grouped - grouped.mean(dim=2, keepdims=True)
    variance = (centred * centred).mean(dim=2, keepdims=True)
    normed = (centred / jt.sqrt(variance + EPS)).reshape(n, c, h, w)
    z = normed * weight.reshape(n, c, 1, 1) + bias.reshape(n, c, 1, 1)
    return z * jt.sigmoid(z) if silu else z
