"""The operations of the networks and the optimiser, on the device in use: `cpu` or `cuda` computes them.

What they must equal are the plain expressions of `reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from medsegdiff.kernels.cpu import operations as cpu
from medsegdiff.kernels.cpu.convolution import Packed
from medsegdiff.kernels.cuda import operations as cuda
from medsegdiff.kernels.reference import Norm, Step
from medsegdiff.runtime.backend import Var, jt

__all__ = ["Norm", "Packed", "Step"]


def device() -> Any:
    """The operations of the device in use, as a module, with what is particular to it.

    NAME: "cpu" or "cuda"
    PACKS: whether convolutions keep their weights packed
    BY_SAMPLE: whether inference computes so that a sample's result is the same in every batch
    """
    return cuda if jt.flags.use_cuda else cpu


def attention(q: Var, k: Var, v: Var) -> Var:
    """softmax(q^T k / sqrt(D)) applied to v; `q`, `k`, `v` and the result are (B, D, T) float32."""
    return device().attention(q, k, v)


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
    return device().conv2d(x, weight, bias, stride, padding, residual, packed, norm)


def join(a: Var, b: Var) -> Var:
    """The channels of `a` (N, A, H, W) and then those of `b` (N, B, H, W), float32: (N, A + B, H, W)."""
    return device().join(a, b)


def upsample_nearest(x: Var) -> Var:
    """(N, C, H, W) -> (N, C, 2H, 2W), float32, each pixel repeated."""
    return device().upsample_nearest(x)


def linear(x: Var, weight: Var, bias: Optional[Var] = None) -> Var:
    """`x` (N, ..., K) times the transpose of `weight` (O, K), plus `bias` (O,): (N, ..., O), float32.

    In float32 inside too, being small.
    """
    return device().linear(x, weight, bias)


def product(a: Var, b: Var, kinds: str = "NN") -> Var:
    """The products of the matrices of `a` and `b` (B, rows, columns), float32; `kinds` says which are transposed.

    "TN" is `a` transposed times `b`. On the CPU in float32 inside too; on a GPU in `precision.current()`.
    """
    return device().product(a, b, kinds)


def mixed(weight: Var, x: Var, bias: Optional[Var] = None, residual: Optional[Var] = None, gelu: bool = False) -> Var:
    """`weight` (O, C) times each of `x` (N, C, P): (N, O, P), float32, without a gradient: for inference.

    `bias` (O,) is added and, on demand, `z * Phi(z)` (GELU, Hendrycks & Gimpel 2016) taken of that; then `residual`
    (N, O, P) is added. On the CPU in float32 inside too; on a GPU in `precision.current()`.
    """
    return device().mixed(weight, x, bias, residual, gelu)


def band_pass(modulation: Var, layers: Sequence[tuple[Var, Var]], tokens: int) -> Var:
    """A gain for each two of so many tokens, (N, 1, tokens, tokens), float32, without a gradient: for inference.

    The two coordinates, each from -1 to 1, go through a 3x3 convolution, a norm of the whole map, SiLU, and so on; then
    through a 1x1 convolution to one map and the logistic function.

    Args:
        modulation: (N, 2 L c): of the L norms, each one's scale, less 1, and shift
        layers: L + 1 weights (c, inputs, 3, 3), the last (1, c, 1, 1), and their biases
        tokens: along both axes
    """
    return device().band_pass(modulation, layers, tokens)


def spectral_attention(
    query: Var,
    key: Var,
    value: Var,
    size: tuple[int, int],
    heads: int,
    gain: Optional[Var] = None,
    softmax: bool = False,
) -> Var:
    """What each place of a map takes of each place of another, weighed by their spectra; always in float32.

    With Q = F q, K = F k (F the orthonormal 2-D DFT), M = Q K^T / sqrt(D) for each head, and M' its real and imaginary
    parts times the `gain`, or their sines: A = Re(F^-1 M' F^-T), and a place takes A v (MedSegDiff-V2, section 3.3). A
    gain of 1 and real q and k give A = q k^T / sqrt(D). F acts on places and weights W on channels, so F(x) W = F(x W):
    `query` and `key` are weighted already.

    Args:
        query, key: (N, heads D, 2 h w): real parts, then imaginary parts
        value: (N, heads V, h w), what is taken
        size: height and width of the maps
        heads: attention heads
        gain: (N or 1, 1, h w, h w); None: the sine instead (the paper's first version)
        softmax: normalise what a place takes

    Returns:
        (N, heads V, h w)
    """
    return device().spectral_attention(query, key, value, size, heads, gain, softmax)


def blur(x: Var, weights: Var, axis: int) -> Var:
    """`x` (N, C, H, W) blurred along the axis 2 or 3 by each channel's `weights` (C, odd number), float32.

    Beyond the border there is nothing. Sums are float64, those of the weights' gradients too.
    """
    return device().blur(x, weights, axis)


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """Group normalisation (Wu & He 2018, eps 1e-5), affine map and, on demand, SiLU.

    Args:
        x: (N, C, H, W) float32
        weight: (N, C), or (1, C) for all samples, what the normalised map is multiplied by
        bias: as `weight`, what is added then
        groups: number of groups, a divisor of C
        silu: apply `z * sigmoid(z)` to the result
    """
    return device().group_norm(x, weight, bias, groups, silu)


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """`x` (N, C, H, W) normalised by its own batch (Ioffe & Szegedy 2015, eps 1e-5); `weight`, `bias` (C,).

    Also gives the mean and the biased variance (C,) of each channel, to which no gradient belongs.
    """
    return device().batch_norm(x, weight, bias)


def channel_sums(u: Var, v: Var) -> tuple[Var, Var]:
    """The sums (C,), float64, of `u * v` and of `v` over all but the channels; both (N, C, H, W) float32."""
    return device().channel_sums(u, v)


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """`a * u + b * v + shift`, float32: `u`, `v` (N, C, H, W) float32, the others (C,) float64."""
    return device().channel_map(u, v, a, b, shift)


def adamw(
    parameters: Sequence[Var], gradients: Sequence[Var], means: Sequence[Var], squares: Sequence[Var], step: Step
) -> None:
    """Overwrite parameters and both moments by those after a step (Loshchilov & Hutter 2019).

    Whatever is to be computed from the old ones must have been; what shares their memory (`detach`, `clone`,
    `reshape`) sees the new ones.

    Args:
        parameters: float32 arrays; each has a gradient, a mean and a square of its shape
        gradients: of each
        means: the first moments
        squares: the second moments
        step: the numbers of this step
    """
    device().adamw(parameters, gradients, means, squares, step)


def approach(averages: Sequence[Var], values: Sequence[Var], share: float) -> None:
    """Move each average by `share` of its distance to its value, in place; of one shape, float32."""
    device().approach(averages, values, share)


def sum_of_squares(values: Sequence[Var]) -> Var:
    """The sum of the squares of all numbers of float32 arrays, float64 (1,)."""
    return device().sum_of_squares(values)
