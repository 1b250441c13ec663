"""The spectrum-space transformer (SS-Former) with its neural band-pass filter (MedSegDiff-V2, section 3.3)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

import numpy as np

from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels import precision
from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.kernels.operations import Norm, attention, band_pass, device, mixed, spectral_attention
from medsegdiff.nn.layers import Conv2d, GroupNorm, Linear
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import Var, jt, nn

_HIDDEN, _LAYERS = 32, 3  # of a filter (choice)


class Plain(Conv2d):
    """A convolution that larger operations take in, with its weights as they are, in inference in float32 on a CPU."""

    @property
    def taken_in(self) -> bool:
        """Whether that is so now."""
        return not self.is_training() and device().PACKS and precision.current() == "fp32"

    def give_up_weight(self) -> None:
        """Nothing is packed of it in float32, see above."""
        if precision.current() != "fp32":
            super().give_up_weight()


class Mix(Plain):
    """A 1x1 convolution of small maps.

    Its weights are more than what they act on: a plain matrix product reads them once, where the convolution brings
    them into another order first.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, init: str = "uniform", gelu: bool = False) -> None:
        super().__init__(inputs, outputs, 1, bias=bias, init=init)
        self.gelu = gelu

    def execute(self, x: Var, residual: Optional[Var] = None) -> Var:
        """(N, inputs, H, W) -> (N, outputs, H, W), after GELU where there is one; `residual` is added."""
        if not self.taken_in:
            return nn.gelu(super().execute(x)) if self.gelu else super().execute(x, residual=residual)
        n, c, h, w = x.shape
        added = None if residual is None else residual.reshape(n, -1, h * w)
        y = mixed(self.weight.reshape(-1, c), x.reshape(n, c, h * w), self.bias, added, self.gelu)
        return y.reshape(n, -1, h, w)


class BandPass(nn.Module):
    """The neural band-pass filter (NBP): a gain for each entry of the affinity's spectrum, by time.

    A small network of the entry's two coordinates. Its layer norms are those of whole maps (choice).
    """

    def __init__(self, embedded: int, tokens: int) -> None:
        self.tokens = tokens
        widths = [2, *[_HIDDEN] * _LAYERS]
        self.convs = nn.ModuleList(*(Plain(i, o, 3) for i, o in zip(widths, widths[1:])))
        self.emb_layers = nn.Sequential(OrderedDict({"1": Linear(embedded, 2 * _LAYERS * _HIDDEN, init="zero")}))
        self.out = Plain(_HIDDEN, 1, 1)

    def execute(self, time: Var) -> Var:
        """The embedded timesteps (N, 4 c) after SiLU -> gains in (0, 1) (N, 1, tokens, tokens)."""
        modulation, rows = self.emb_layers(time), len(time)
        if self.out.taken_in:
            return band_pass(modulation, [(conv.weight, conv.bias) for conv in (*self.convs, self.out)], self.tokens)
        at = np.linspace(-1, 1, self.tokens, dtype=np.float32)
        x = jt.array(np.stack(np.meshgrid(at, at, indexing="ij"))[None])
        parts = jt.chunk(modulation, 2 * _LAYERS, dim=1)
        norm = None
        for conv, scale, shift in zip(self.convs, parts[::2], parts[1::2]):
            x = conv(x, norm=norm)
            if x.shape[0] != rows:
                x = x.broadcast([rows, *x.shape[1:]])
            norm = Norm(1 + scale, shift, groups=1, silu=True)
        return sigmoid(self.out(x, norm=norm))


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
        self.emb_layers = nn.Sequential(OrderedDict({"1": Linear(4 * config.num_channels, 2 * width, init="zero")}))
        self.mlp = nn.Sequential(OrderedDict({"0": Mix(width, 4 * width, gelu=True), "2": Mix(4 * width, width)}))
        filtered = self.in_spectrum and config.spectrum == "nbp"
        self.filter = BandPass(4 * config.num_channels, config.deepest_map**2) if filtered else None

    def execute(self, q: Var, kv: Var, time: Var, embedding: Var) -> Var:
        """Maps (N, width, h, w) -> as q.

        `time` and `embedding` are the embedded timesteps, without and with the label, after SiLU: (N, 4 c), of which
        `time` may be one row for all samples.
        """
        count, width, h, w = q.shape
        seen = self.norm_kv(kv)
        query, key, value = self.query(self.norm_q(q)), self.key(seen), self.value(seen)
        if self.in_spectrum:
            gain = None if self.filter is None else self.filter(time)
            query, key = (x.reshape(count, width, 2 * h * w) for x in (query, key))
            value = value.reshape(count, width, h * w)
            taken = spectral_attention(query, key, value, (h, w), self.heads, gain, self.softmax)
        else:
            taken = attention(*(x.reshape(count * self.heads, -1, h * w) for x in (query, key, value)))
        z = self.proj_out(taken.reshape(q.shape), residual=q)
        scale, shift = jt.chunk(self.emb_layers(embedding), 2, dim=1)
        first, last = self.mlp
        return last(first(self.norm(z, scale, shift)), residual=z)


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
