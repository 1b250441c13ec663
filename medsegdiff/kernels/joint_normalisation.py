"""Batch norm of a batch that several processes share."""

from __future__ import annotations

from medsegdiff.base import ranks
from medsegdiff.kernels.function import Function
from medsegdiff.kernels.operations import channel_map, channel_sums
from medsegdiff.kernels.reference import EPS
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import Var, jt


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
