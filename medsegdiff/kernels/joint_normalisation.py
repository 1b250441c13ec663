"""Batch norm of a batch that several processes share."""

from __future__ import annotations

from typing import Any

from medsegdiff.base import ranks
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.normalisation import EPS, HEADER
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var


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
        sums = jt.code((2 * c,), "float64", [u, v], cpu_header=HEADER, cpu_src=_SUMS)
        return sums[:c], sums[c:]
    wide = v.float64()
    return (u.float64() * wide).sum((0, 2, 3)), wide.sum((0, 2, 3))


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """`a * u + b * v + shift`, float32: `u`, `v` (N, C, H, W) float32, the others (C,) float64."""
    if not jt.flags.use_cuda:
        return jt.code(u.shape, u.dtype, [u, v, a, b, shift], cpu_header=HEADER, cpu_src=_MAP)
    a, b, shift = (value.reshape(1, -1, 1, 1) for value in (a, b, shift))
    return (a * u + b * v + shift).float32()


def _joint_means(x: Var, *sums: Var) -> list[Var]:
    """Sums (C,) over the channels of `x`, as means over those of all processes, whose shapes are one."""
    count = x.numel() // x.shape[1] * ranks.count()
    return jt.chunk(exchange.total(jt.concat(sums)) / count, len(sums))


def joint_moments(x: Var) -> tuple[Var, Var]:
    """Mean and variance (C,), float64, of the channels of `x` (N, C, H, W) float32 in all processes."""
    with jt.no_grad():
        _, mean = _joint_means(x, *channel_sums(x, x))
        zeros = jt.zeros_like(mean)
        centred = channel_map(x, x, zeros + 1, zeros, -mean)
        squares, off = _joint_means(x, *channel_sums(centred, centred))
        return mean, jt.maximum(squares - off * off, zeros)


def joint_batch_norm(x: Var, weight: Var, bias: Var, mean: Var, variance: Var) -> Var:
    """`batch_norm` of a batch that several processes share; `mean` and `variance` are its `joint_moments`."""
    return _JointBatchNorm(mean, variance)(x, weight, bias)


class _JointBatchNorm(Function):
    """The moments move with `x`, so its gradient takes in what all processes feel; other gradients are one's own."""

    def __init__(self, mean: Var, variance: Var) -> None:
        self.mean, self.rstd = mean, 1 / jt.sqrt(variance + EPS)

    def execute(self, x: Var, weight: Var, bias: Var) -> Var:
        scale = weight.float64() * self.rstd
        self.save(x, scale)
        return channel_map(x, x, scale, jt.zeros_like(scale), bias.float64() - self.mean * scale)

    def grad(self, grad: Var) -> tuple[Var, Var, Var]:
        x, scale = self.saved()
        products, dbias = channel_sums(x, grad)
        dweight = (products - self.mean * dbias) * self.rstd
        along, mean = _joint_means(x, dweight, dbias)
        tilt = -scale * self.rstd * along
        dx = channel_map(grad, x, scale, tilt, -scale * mean - tilt * self.mean)
        return dx, dweight.float32(), dbias.float32()
