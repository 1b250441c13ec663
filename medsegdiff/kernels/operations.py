"""The operations of the networks and the optimiser: on a CPU the kernels of `cpu`, elsewhere plain expressions."""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.kernels import reference
from medsegdiff.kernels.cpu import attention as _attention
from medsegdiff.kernels.cpu import channels as _channels
from medsegdiff.kernels.cpu import convolution as _convolution
from medsegdiff.kernels.cpu import linear as _linear
from medsegdiff.kernels.cpu import maps as _maps
from medsegdiff.kernels.cpu import normalisation as _normalisation
from medsegdiff.kernels.cpu import product as _product
from medsegdiff.kernels.cpu import update as _update
from medsegdiff.kernels.cpu.convolution import Packed
from medsegdiff.kernels.reference import Norm, Step
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var


def _for(cpu: Any) -> Any:
    """Where the functions for the device in use are: the module `cpu`, or `reference`."""
    return reference if jt.flags.use_cuda else cpu


def attention(q: Var, k: Var, v: Var) -> Var:
    """softmax(q^T k / sqrt(D)) applied to v; `q`, `k`, `v` and the result are (B, D, T) float32."""
    return _for(_attention).attention(q, k, v)


def conv2d(
    x: Var,
    weight: Optional[Var],
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    packed: Optional[Packed] = None,
    norm: Optional[Norm] = None,
) -> Var:
    """Convolution of `x` (N, C, H, W) by `weight`, in `precision.current()`; everything given is float32.

    Args:
        x: (N, C, H, W)
        weight: (O, C, K, K); (O, C, 1) is a 1x1 kernel; None: those that `packed` took
        bias: (O,), or (N, O): one for each sample
        stride: of both axes
        padding: zeros around `x`
        residual: (N, O, H', W'), added to the result
        packed: for inference: computes sample by sample, so that a sample's result is the same in every batch, and
            keeps the weights here where they are packed smaller than they are
        norm: what `x` goes through first; its result is never stored, and is computed again for the gradient
    """
    if jt.flags.use_cuda:
        return reference.conv2d(x, weight, bias, stride, padding, residual, norm)
    return _convolution.conv2d(x, weight, bias, stride, padding, residual, packed, norm)


def join(a: Var, b: Var) -> Var:
    """The channels of `a` (N, A, H, W) and then those of `b` (N, B, H, W), float32: (N, A + B, H, W)."""
    return _for(_maps).join(a, b)


def upsample_nearest(x: Var) -> Var:
    """(N, C, H, W) -> (N, C, 2H, 2W), float32, each pixel repeated."""
    return _for(_maps).upsample_nearest(x)


def linear(x: Var, weight: Var, bias: Optional[Var] = None) -> Var:
    """`x` (N, ..., K) times the transpose of `weight` (O, K), plus `bias` (O,): (N, ..., O), float32.

    On the CPU in float32 inside too, being small; on a GPU in `precision.current()`.
    """
    return _for(_linear).linear(x, weight, bias)


def product(a: Var, b: Var, kinds: str = "NN") -> Var:
    """The products of the matrices of `a` and `b` (B, rows, columns), float32; `kinds` says which are transposed.

    "TN" is `a` transposed times `b`. On the CPU in float32 inside too; on a GPU in `precision.current()`.
    """
    return _for(_product).product(a, b, kinds)


def mixed(weight: Var, x: Var) -> Var:
    """`weight` (O, C) times each of `x` (N, C, P): (N, O, P), float32, without a gradient: for inference.

    On the CPU in float32 inside too; on a GPU in `precision.current()`.
    """
    return _for(_product).mixed(weight, x)


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """Group normalisation (Wu & He 2018, eps 1e-5), affine map and, on demand, SiLU.

    Args:
        x: (N, C, H, W) float32
        weight: (N, C), what the normalised map is multiplied by
        bias: (N, C), what is added then
        groups: number of groups, a divisor of C
        silu: apply `z * sigmoid(z)` to the result
    """
    return _for(_normalisation).group_norm(x, weight, bias, groups, silu)


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """`x` (N, C, H, W) normalised by its own batch (Ioffe & Szegedy 2015, eps 1e-5); `weight`, `bias` (C,).

    Also gives the mean and the biased variance (C,) of each channel, to which no gradient belongs.
    """
    return _for(_normalisation).batch_norm(x, weight, bias)


def channel_sums(u: Var, v: Var) -> tuple[Var, Var]:
    """The sums (C,), float64, of `u * v` and of `v` over all but the channels; both (N, C, H, W) float32."""
    return _for(_channels).channel_sums(u, v)


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """`a * u + b * v + shift`, float32: `u`, `v` (N, C, H, W) float32, the others (C,) float64."""
    return _for(_channels).channel_map(u, v, a, b, shift)


def adamw(parameter: Var, gradient: Var, mean: Var, square: Var, step: Step) -> None:
    """Overwrite a parameter and both moments by those after a step (Loshchilov & Hutter 2019); of one shape, float32.

    Whatever is to be computed from the old ones must have been; what shares their memory (`detach`, `clone`,
    `reshape`) sees the new ones.
    """
    if not jt.flags.use_cuda:
        _update.adamw(parameter, gradient, mean, square, step)
        return
    for value, new in zip((parameter, mean, square), reference.adamw(parameter, gradient, mean, square, step)):
        value.update(new)


def approach(average: Var, value: Var, share: float) -> None:
    """Move `average` by `share` of its distance to `value`, in place; of one shape, float32."""
    if jt.flags.use_cuda:
        average.update(reference.approach(average, value, share))
    else:
        _update.approach(average, value, share)


def sum_of_squares(value: Var) -> Var:
    """The sum of the squares of a float32 array, float64 (1,)."""
    return _for(_update).sum_of_squares(value)
