"""The operations as plain Jittor expressions, for any device: what the kernels for the CPU must equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from medsegdiff.base.fourier import fourier_matrix
from medsegdiff.kernels import precision
from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.runtime.backend import Var, jt, nn

EPS = 1e-5
"""What norms add to a variance."""


class Step(NamedTuple):
    """The numbers of an AdamW step, which is the same for every parameter but for what decays."""

    scale: float
    """What gradients are multiplied by."""
    keep: float
    """What the parameter is multiplied by: 1 - learning rate * decay."""
    rate: float
    """Learning rate over 1 - beta1^t."""
    correction: float
    """1 / sqrt(1 - beta2^t)."""
    beta1: float
    beta2: float
    eps: float


class Norm(NamedTuple):
    """A group norm before a convolution, see `operations.group_norm`."""

    weight: Any
    """(N, C), or (1, C) for all samples"""
    bias: Any
    """As `weight`."""
    groups: int
    silu: bool


def attention(q: Var, k: Var, v: Var) -> Var:
    """As in `operations`."""
    scale = q.shape[1] ** -0.25  # of both, or float16 overflows
    scores = precision.narrowed(jt.nn.bmm, (q * scale).transpose(0, 2, 1), k * scale)
    return precision.narrowed(jt.nn.bmm, v, jt.nn.softmax(scores, dim=-1).transpose(0, 2, 1))


def conv2d(
    x: Var,
    weight: Var,
    bias: Optional[Var] = None,
    stride: int = 1,
    padding: int = 0,
    residual: Optional[Var] = None,
    norm: Optional[Norm] = None,
) -> Var:
    """As in `operations`."""
    if norm is not None:
        x = group_norm(x, *norm)
    kernel = weight if len(weight.shape) == 4 else weight.unsqueeze(3)
    y = precision.narrowed(lambda x, kernel: nn.conv2d(x, kernel, stride=stride, padding=padding), x, kernel)
    if bias is not None:
        y = y + bias.reshape(-1, weight.shape[0], 1, 1)
    return y if residual is None else y + residual


def join(a: Var, b: Var) -> Var:
    """As in `operations`."""
    return jt.concat([a, b], dim=1)


def upsample_nearest(x: Var) -> Var:
    """As in `operations`."""
    n, c, h, w = x.shape
    return x.reindex([n, c, 2 * h, 2 * w], ["i0", "i1", "i2/2", "i3/2"])


def linear(x: Var, weight: Var, bias: Optional[Var] = None) -> Var:
    """As in `operations`."""
    rows = x.reshape(-1, x.shape[-1])
    y = precision.narrowed(jt.matmul, rows, weight.transpose(1, 0)).reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


def product(a: Var, b: Var, kinds: str = "NN") -> Var:
    """As in `operations`."""
    turned = (x if kind == "N" else x.transpose(0, 2, 1) for x, kind in zip((a, b), kinds))
    return precision.narrowed(jt.nn.bmm, *turned)


def mixed(weight: Var, x: Var, bias: Optional[Var] = None, residual: Optional[Var] = None, gelu: bool = False) -> Var:
    """As in `operations`."""
    y = product(weight.unsqueeze(0).broadcast([x.shape[0], *weight.shape]), x)
    y = y if bias is None else y + bias.reshape(1, -1, 1)
    y = nn.gelu(y) if gelu else y
    return y if residual is None else y + residual


def band_pass(modulation: Var, layers: Sequence[tuple[Var, Var]], tokens: int) -> Var:
    """As in `operations`."""
    at = np.linspace(-1, 1, tokens, dtype=np.float32)
    x = jt.array(np.stack(np.meshgrid(at, at, indexing="ij"))[None])
    parts = jt.chunk(modulation, 2 * (len(layers) - 1), dim=1)
    for (weight, bias), scale, shift in zip(layers, parts[::2], parts[1::2]):
        x = conv2d(x, weight, bias, padding=1).broadcast([len(modulation), len(weight), tokens, tokens])
        x = group_norm(x, 1 + scale, shift, groups=1, silu=True)
    return sigmoid(conv2d(x, *layers[-1]))


def spectral_attention(
    query: Var,
    key: Var,
    value: Var,
    size: tuple[int, int],
    heads: int,
    gain: Optional[Var] = None,
    softmax: bool = False,
    multiply: Callable[..., Var] = product,
) -> Var:
    """As in `operations`; `multiply` is a `product`."""
    n, count = value.shape[2], query.shape[0] * heads
    d = query.shape[1] // heads
    matrix = fourier_matrix(*size)
    with precision.using("fp32"):  # a spectrum's values are too far apart for fewer bits
        spectra = [linear(x, jt.array(matrix.T.copy())).reshape(count, d, 2 * n) for x in (query, key)]
        products = multiply(*spectra, "TN") * (1 / d**0.5)  # of real and imaginary parts, all four
        sign = jt.array(np.repeat(np.float32([-1, 1]), n))
        shape = [count, n, 2 * n]
        turned = products.reindex(shape, ["i0", f"i1+{n}", f"(i2+{n})%{2 * n}"])
        scores = (products.reindex(shape, ["i0", "i1", "i2"]) + sign * turned).reshape(-1, heads, n, 2 * n)
        if gain is None:
            scores = jt.sin(scores)
        else:
            row = "0" if gain.shape[0] == 1 else "i0"
            scores = scores * gain.reindex(scores.shape, [row, "0", "i2", f"i3%{n}"])
        half = linear(scores, jt.array(matrix)).reshape(count, n, 2, n).transpose(0, 3, 2, 1)
        affinity = linear(half.reshape(count, n, 2 * n), jt.array(matrix[:n].copy()))  # transposed
        affinity = nn.softmax(affinity, dim=1) if softmax else affinity
        return multiply(value.reshape(count, -1, n), affinity).reshape(value.shape)


def blur(x: Var, weights: Var, axis: int) -> Var:
    """As in `operations`."""
    index, place = ["i0", "i1", "i2", "i3"], f"i{axis}"
    blurred = jt.array(np.zeros(1))
    for tap in range(weights.shape[1]):
        index[axis] = f"{place}+{tap - weights.shape[1] // 2}"
        # Gradients of the weights are sums over all pixels: in float64, as Jittor adds one number after another.
        blurred = blurred + x.reindex(x.shape, index).float64() * weights[:, tap].float64().reshape(1, -1, 1, 1)
    return blurred.float32()


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """As in `operations`."""
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, -1)
    centred = grouped - grouped.mean(dim=2, keepdims=True)
    variance = (centred * centred).mean(dim=2, keepdims=True)
    normed = (centred / jt.sqrt(variance + EPS)).reshape(n, c, h, w)
    z = normed * weight.reshape(-1, c, 1, 1) + bias.reshape(-1, c, 1, 1)
    return z * sigmoid(z) if silu else z


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """As in `operations`: averaged stage by stage, as one float32 sum loses digits."""

    def mean(values: Var) -> Var:
        return values.mean(dim=3).mean(dim=2).mean(dim=0)

    average = mean(x)
    centred = x - average.reshape(1, -1, 1, 1)
    variance = mean(centred * centred)
    normed = centred / jt.sqrt(variance + EPS).reshape(1, -1, 1, 1)
    y = normed * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
    return y, average.detach(), variance.detach()


def channel_sums(u: Var, v: Var) -> tuple[Var, Var]:
    """As in `operations`."""
    wide = v.float64()
    return (u.float64() * wide).sum((0, 2, 3)), wide.sum((0, 2, 3))


def channel_map(u: Var, v: Var, a: Var, b: Var, shift: Var) -> Var:
    """As in `operations`."""
    a, b, shift = (value.reshape(1, -1, 1, 1) for value in (a, b, shift))
    return (a * u + b * v + shift).float32()


def adamw(parameter: Var, gradient: Var, mean: Var, square: Var, step: Step) -> tuple[Var, Var, Var]:
    """The parameter, mean and square that `operations.adamw` leaves."""
    # As arrays: a new number in the expression itself would be compiled anew.
    scale, keep, rate, correction = (jt.array(np.float32([value])) for value in step[:4])
    gradient = gradient * scale
    mean = step.beta1 * mean + (1 - step.beta1) * gradient
    square = step.beta2 * square + (1 - step.beta2) * gradient * gradient
    moved = rate * mean / (jt.sqrt(square) * correction + step.eps)
    return parameter * keep - moved, mean, square


def approach(average: Var, value: Var, share: float) -> Var:
    """The average that `operations.approach` leaves."""
    return average + jt.array(np.float32([share])) * (value.detach() - average)


def sum_of_squares(value: Var) -> Var:
    """As in `operations`."""
    return (value.float64() * value).sum().reshape(1)
