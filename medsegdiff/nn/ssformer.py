"""The spectrum-space transformer (SS-Former) with its neural band-pass filter (MedSegDiff-V2, section 3.3)."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from medsegdiff.base.fourier import fourier_matrix
from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels import precision
from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.kernels.operations import attention, device, group_norm, linear, mixed, product
from medsegdiff.nn.layers import Conv2d, GroupNorm, Linear, SiLU
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import jt, nn

Var = Any  # jt.Var
_HIDDEN, _LAYERS = 32, 3  # of a filter (choice)


def spectral_affinity(
    query: Var, key: Var, size: tuple[int, int], heads: int, gain: Optional[Var] = None, softmax: bool = False
) -> Var:
    """What each place of a map takes of each place of another, weighed by their spectra.

    With Q = F q, K = F k (F the orthonormal 2-D DFT), M = Q K^T / sqrt(D) for each head, and M' its real and imaginary
    parts times the `gain`, or their sines: A = Re(F^-1 M' F^-T). A gain of 1 and real q and k give q k^T / sqrt(D).
    F acts on places and weights W on channels, so F(x) W = F(x W): `query` and `key` are weighted already.

    Args:
        query, key: (N, heads D, 2 h w): real parts, then imaginary parts
        size: height and width of the maps
        heads: attention heads
        gain: (N or 1, 1, h w, h w); None: the sine instead (the paper's first version)
        softmax: normalise what a place takes

    Returns:
        (N heads, h w, h w): A transposed, so that a column is what one place takes.
    """
    n, count = size[0] * size[1], query.shape[0] * heads
    d = query.shape[1] // heads
    matrix = fourier_matrix(*size)
    spectra = [linear(x, jt.array(matrix.T.copy())).reshape(count, d, 2 * n) for x in (query, key)]
    products = product(*spectra, "TN") * (1 / d**0.5)  # of real and imaginary parts, all four
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
    affinity = linear(half.reshape(count, n, 2 * n), jt.array(matrix[:n].copy()))
    return nn.softmax(affinity, dim=1) if softmax else affinity


class Mix(Conv2d):
    """A 1x1 convolution of small maps.

    Its weights are more than what they act on: in float32 on a CPU, inference takes plain matrix products, which read
    them once, where the convolution brings them into another order first.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, init: str = "uniform") -> None:
        super().__init__(inputs, outputs, 1, bias=bias, init=init)

    def execute(self, x: Var, shift: Optional[Var] = None, residual: Optional[Var] = None) -> Var:
        """As every convolution."""
        if shift is not None or self.is_training() or not device().PACKS or precision.current() != "fp32":
            return super().execute(x, shift, residual)
        n, c, h, w = x.shape
        y = mixed(self.weight.reshape(-1, c), x.reshape(n, c, h * w)).reshape(n, -1, h, w)
        if self.bias is not None:
            y = y + self.bias.reshape(1, -1, 1, 1)
        return y if residual is None else y + residual


class BandPass(nn.Module):
    """The neural band-pass filter (NBP): a gain for each entry of the affinity's spectrum, by time.

    A small network of the entry's two coordinates. Its layer norms are those of whole maps (choice).
    """

    def __init__(self, embedded: int, tokens: int) -> None:
        self.tokens = tokens
        widths = [2, *[_HIDDEN] * _LAYERS]
        self.convs = nn.ModuleList(*(Conv2d(i, o, 3) for i, o in zip(widths, widths[1:])))
        self.emb_layers = nn.Sequential(SiLU(), Linear(embedded, 2 * _LAYERS * _HIDDEN, init="zero"))
        self.out = Conv2d(_HIDDEN, 1, 1)

    def execute(self, time: Var, rows: int) -> Var:
        """The embedded timesteps (at least `rows`, 4 c) -> gains in (0, 1) (rows, 1, tokens, tokens)."""
        at = np.linspace(-1, 1, self.tokens, dtype=np.float32)
        x = jt.array(np.stack(np.meshgrid(at, at, indexing="ij"))[None])
        modulations = jt.chunk(self.emb_layers(time)[:rows], 2 * _LAYERS, dim=1)
        for conv, scale, shift in zip(self.convs, modulations[::2], modulations[1::2]):
            x = conv(x)
            if x.shape[0] != rows:
                x = x.broadcast([rows, *x.shape[1:]])
            x = group_norm(x, 1 + scale, shift, groups=1, silu=True)
        return sigmoid(self.out(x))


class CrossAttention(Part):
    """`X(q, kv)`: q takes from kv what it attends to, then a perceptron that the timestep modulates."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        self.heads, self.softmax = config.ssformer_heads, config.attention_norm == "softmax"
        self.in_spectrum = config.ssformer == "spectrum"
        weighted = width * (2 if self.in_spectrum else 1)  # an even output channel is real, the next one imaginary
        self.norm_q, self.norm_kv, self.norm = (GroupNorm(width) for _ in range(3))
        self.query, self.key = (Mix(width, weighted, bias=False) for _ in range(2))
        self.value = Mix(width, width, bias=False)
        self.proj_out = Mix(width, width)
        self.emb_layers = nn.Sequential(SiLU(), Linear(4 * config.num_channels, 2 * width, init="zero"))
        self.mlp = nn.Sequential(Mix(width, 4 * width), nn.GELU(), Mix(4 * width, width))
        filtered = self.in_spectrum and config.spectrum == "nbp"
        self.filter = BandPass(4 * config.num_channels, config.deepest_map**2) if filtered else None

    def execute(self, q: Var, kv: Var, time: Var, embedding: Var) -> Var:
        """Maps (N, width, h, w) -> as q.

        `time` and `embedding` are the embedded timesteps, without and with the label: (at least N, 4 c), of which
        `time` may be two equal rows for all samples.
        """
        count, width, h, w = q.shape
        seen = self.norm_kv(kv)
        query, key, value = self.query(self.norm_q(q)), self.key(seen), self.value(seen)
        value = value.reshape(count * self.heads, -1, h * w)
        if self.in_spectrum:
            gain = self.filter(time, count if time.shape[0] == count else 1) if self.filter is not None else None
            query, key = (x.reshape(count, width, 2 * h * w) for x in (query, key))
            with precision.using("fp32"):  # a spectrum's values are too far apart for fewer bits
                taken = product(value, spectral_affinity(query, key, (h, w), self.heads, gain, self.softmax))
        else:
            taken = attention(*(x.reshape(value.shape) for x in (query, key)), value)
        z = self.proj_out(taken.reshape(q.shape), residual=q)
        scale, shift = jt.chunk(self.emb_layers(embedding)[:count], 2, dim=1)
        first, gelu, last = self.mlp
        return last(gelu(first(self.norm(z, scale, shift))), residual=z)


class Block(nn.Module):
    """The noise is encoded into the semantics, and the mixture back into the noise."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        self.semantics, self.noise = CrossAttention(config, width), CrossAttention(config, width)

    def execute(self, e: Var, c: Var, time: Var, embedding: Var) -> Var:
        """Noise and semantics (N, width, h, w) -> the semantics of the next block."""
        return self.noise(self.semantics(e, c, time, embedding), e, time, embedding)


class SSFormer(nn.Module):
    """Joins the denoiser's deepest map with the conditioning network's; nothing at first, as `out` starts at zero."""

    def __init__(self, config: NetworkConfig, condition_width: int) -> None:
        width = config.level_widths[-1]
        self.condition = Mix(condition_width, width)
        self.blocks = nn.ModuleList(*(Block(config, width) for _ in range(config.ssformer_blocks)))
        self.out = Mix(width, width, init="zero")

    def execute(self, e: Var, c: Var, time: Var, embedding: Var) -> Var:
        """The denoiser's map and the semantics, both (N, width, h, w) -> the former, joined with the latter."""
        for block in self.blocks:
            c = block(e, c, time, embedding)
        return self.out(c, residual=e)
