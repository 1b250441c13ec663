"""Version v2 of `medsegdiff.nn` as plain eager PyTorch, as the paper writes it: complex numbers, FFTs, einsums.

Structure, options and names are those of `medsegdiff.nn.v2`, so either side loads the other's weights.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_network import GROUPS, TorchMedSegDiff, resized
from medsegdiff.config.network import NetworkConfig

KERNEL = 5
HIDDEN, LAYERS = 32, 3
LEAST_VARIANCE = 1e-6


class Meeting(NamedTuple):
    """What depends on the image alone; the first four as in `Condition`."""

    stem: Tensor
    cal: Tensor
    image: None
    label: Optional[Tensor]
    gates: list[Tensor]
    """(N, 1, S, S) and, with two anchor levels, (N, 1, S/2, S/2); in [0, 1]."""
    semantics: Optional[Tensor]
    """(N, deepest width, h, w), for the SS-Former."""


class UncertainAttention(nn.Module):
    """Where to look (U-SA): a feature map and its blurred self, whichever is larger, as one gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width, 2))
        self.deviation = nn.Parameter(torch.ones(width))
        self.gate = nn.Conv2d(width, 1, 1)

    def kernel(self) -> Tensor:
        """(width, 1, 5, 5): a Gaussian for each channel, with sum 1."""
        at = torch.arange(KERNEL, dtype=self.mean.dtype) - KERNEL // 2
        variance = F.softplus(self.deviation)[:, None, None] ** 2 + LEAST_VARIANCE
        y, x = (((at - self.mean[:, axis, None]) ** 2) for axis in (0, 1))
        exponent = -(y[:, :, None] + x[:, None, :]) / (2 * variance)
        return exponent.flatten(1).softmax(dim=1).view(-1, 1, KERNEL, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, 1, H, W) in [0, 1]."""
        blurred = F.conv2d(x, self.kernel(), padding=KERNEL // 2, groups=x.shape[1])
        return self.gate(torch.maximum(blurred, x)).sigmoid()


class BandPass(nn.Module):
    """The neural band-pass filter (NBP): a gain for each entry of the affinity's spectrum, by time."""

    def __init__(self, embedded: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        widths = [2, *[HIDDEN] * LAYERS]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(widths, widths[1:]))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, 2 * LAYERS * HIDDEN))
        self.out = nn.Conv2d(HIDDEN, 1, 1)

    def forward(self, time: Tensor) -> Tensor:
        """The embedded timesteps (N, 4 c) -> gains (N, 1, tokens, tokens)."""
        at = torch.linspace(-1, 1, self.tokens, dtype=time.dtype)
        x = torch.stack(torch.meshgrid(at, at, indexing="ij"))[None].repeat(len(time), 1, 1, 1)
        modulations = self.emb_layers(time)[:, :, None, None].chunk(2 * LAYERS, dim=1)
        for conv, scale, shift in zip(self.convs, modulations[::2], modulations[1::2]):
            x = F.silu(F.group_norm(conv(x), 1) * (1 + scale) + shift)
        return self.out(x).sigmoid()


class CrossAttention(nn.Module):
    """`X(q, kv)`: q takes from kv what it attends to, then a perceptron that the timestep modulates."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.config, self.heads = config, config.ssformer_heads
        self.in_spectrum = config.ssformer == "spectrum"
        parts = 2 if self.in_spectrum else 1
        self.norm_q, self.norm_kv, self.norm = (nn.GroupNorm(GROUPS, width) for _ in range(3))
        self.query, self.key = (nn.Conv2d(width, parts * width, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(width, width, 1, bias=False)
        self.proj_out = nn.Conv2d(width, width, 1)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.num_channels, 2 * width))
        self.mlp = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))
        if self.in_spectrum and config.spectrum == "nbp":
            self.filter = BandPass(4 * config.num_channels, config.deepest_map**2)

    def _weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """F(x) W by heads, (N, heads, width of a head, h w), complex."""
        real, imaginary = weight[:, :, 0, 0].unflatten(0, (-1, 2)).unbind(1)
        spectrum = torch.fft.fft2(x, norm="ortho")
        return (
            torch.einsum("nchw,dc->ndhw", spectrum, torch.complex(real, imaginary))
            .flatten(2)
            .unflatten(1, (self.heads, -1))
        )

    def _affinity(self, q: Tensor, kv: Tensor, time: Tensor) -> Tensor:
        """A (N, heads, h w, h w): what each place of q takes of each place of kv."""
        query, key = (self._weighted(x, m.weight) for x, m in ((q, self.query), (kv, self.key)))
        scores = torch.einsum("nadi,nadj->naij", query, key) / query.shape[2] ** 0.5
        if self.config.spectrum == "sine":
            scores = torch.complex(scores.real.sin(), scores.imag.sin())
        else:
            scores = scores * self.filter(time)
        h, w = q.shape[2:]
        back = torch.fft.ifftn(scores.unflatten(2, (h, w)).unflatten(4, (h, w)), dim=(2, 3, 4, 5), norm="ortho")
        affinity = back.real.flatten(4).flatten(2, 3)
        return affinity.softmax(dim=3) if self.config.attention_norm == "softmax" else affinity

    def forward(self, q: Tensor, kv: Tensor, time: Tensor, embedding: Tensor) -> Tensor:
        """Maps (N, width, h, w), the embedded timesteps (N, 4 c), without and with the label -> as q."""
        queried, seen = self.norm_q(q), self.norm_kv(kv)
        value = self.value(seen).flatten(2).unflatten(1, (self.heads, -1))
        if self.in_spectrum:
            affinity = self._affinity(queried, seen, time)
        else:
            query, key = (
                m(x).flatten(2).unflatten(1, (self.heads, -1)) for x, m in ((queried, self.query), (seen, self.key))
            )
            affinity = (torch.einsum("nadi,nadj->naij", query, key) / query.shape[2] ** 0.5).softmax(dim=3)
        taken = torch.einsum("naij,nadj->nadi", affinity, value)
        z = q + self.proj_out(taken.flatten(1, 2).unflatten(2, q.shape[2:]))
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        return z + self.mlp(self.norm(z) * (1 + scale) + shift)


class SSFormer(nn.Module):
    """The spectrum-space transformer: noise and semantics, each encoded into the other, block by block."""

    def __init__(self, config: NetworkConfig, condition_width: int) -> None:
        super().__init__()
        width = config.level_widths[-1]
        self.condition = nn.Conv2d(condition_width, width, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: CrossAttention(config, width) for name in ("semantics", "noise")})
            for _ in range(config.ssformer_blocks)
        )
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, e: Tensor, c: Tensor, time: Tensor, embedding: Tensor) -> Tensor:
        """The denoiser's deepest map and the semantics (N, width, h, w) -> the former, with the latter."""
        for block in self.blocks:
            mixed = block["semantics"](e, c, time, embedding)
            c = block["noise"](mixed, e, time, embedding)
        return e + self.out(c)


class TorchV2(TorchMedSegDiff):
    """The conditional denoiser of version v2."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        base = config.num_channels // 4
        self.anchors = nn.ModuleList(UncertainAttention(base) for _ in range(config.anchor_levels))
        if config.ssformer != "none":
            self.ssformer = SSFormer(config, 15 * base)

    def encode(self, image: Tensor, label: Optional[Tensor] = None) -> Meeting:
        """What the denoiser needs of images (N, C, S, S) and, with class conditioning, labels (N,)."""
        if (label is not None) != self.config.class_cond:
            raise ValueError("a label goes with class conditioning, and only with it")
        first, seen = self.input_blocks[0][0], self.config.seen_channels
        bias = first.bias.view(1, -1, 1, 1)
        stem = bias + F.conv2d(image, first.weight[:, :seen], padding=1) if seen else bias
        cal, bottleneck, expanded = self.hwm(image)
        semantics = None
        if self.config.ssformer != "none":
            semantics = resized(self.ssformer.condition(bottleneck), self.config.deepest_map)
        anchors = [value.detach() if self.config.anchor_detach else value for value in expanded[::-1]]
        gates = [attention(value) for attention, value in zip(self.anchors, anchors)]
        return Meeting(stem, cal, None, None if label is None else self.label_emb(label), gates, semantics)

    def _anchored(self, h: Tensor, index: int, condition: Meeting) -> Tensor:
        places = [0, *self.downsamplings][: len(condition.gates)]
        return h * condition.gates[places.index(index)] + h if index in places else h

    def _met(
        self, h: Tensor, skips: list[Tensor], time: Tensor, embedding: Tensor, condition: Meeting
    ) -> tuple[Tensor, Tensor]:
        if condition.semantics is not None:
            h = self.ssformer(h, condition.semantics, time, embedding)
        return h, condition.cal


def twin(config: NetworkConfig) -> TorchMedSegDiff:
    """The network of any version. Its initial weights are PyTorch's defaults: load others to compare."""
    return (TorchV2 if config.version == "v2" else TorchMedSegDiff)(config)
