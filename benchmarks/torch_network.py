"""The networks of `medsegdiff.nn` as plain eager PyTorch, for comparisons of speed and of gradients.

Structure, options and names are those of `medsegdiff.nn`, so either side loads the other's weights. Nothing
here fixes a precision: after `.double()` every value is computed in float64.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.network import NetworkConfig
from medsegdiff.parity.cases import parameter

GROUPS = 32
STAGES = 5
COUNTER = "num_batches_tracked"
"""A batch norm's counter: PyTorch's own, so neither compared nor given."""


class Prediction(NamedTuple):
    """What the network says of a noisy mask; each (N, M, S, S)."""

    target: Tensor
    """The predicted noise, or the clean mask when trained so."""
    variance: Optional[Tensor]
    """The variance value v; None if not learned."""
    cal: Tensor
    """The conditioning network's mask, in [0, 1]."""


class Condition(NamedTuple):
    """What depends on the image alone."""

    stem: Tensor
    """(N, c, S, S): the image's part of the first convolution, its bias and the anchor."""
    cal: Optional[Tensor] = None
    """(N, M, S, S), version "new"."""
    image: Optional[Tensor] = None
    """(N, C, S, S), version "v1"."""
    label: Optional[Tensor] = None
    """(N, 4 c): the embedded class label."""


def _bilinear(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def resized(x: Tensor, size: int) -> Tensor:
    """The conditioning network's bottleneck at the size of the denoiser's deepest maps."""
    if x.shape[2] > size:
        return F.avg_pool2d(x, x.shape[2] // size)
    return x if x.shape[2] == size else _bilinear(x, size // x.shape[2])


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (N, width) of floating-point timesteps (N,), cosines first."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=t.dtype, device=t.device) / half)
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """Residual block with the timestep embedding; `resample` is "", "up" or "down"."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int, resample: str = "") -> None:
        super().__init__()
        self.scale_shift = config.use_scale_shift_norm
        self.resample = {"": nn.Identity(), "up": nn.Upsample(scale_factor=2), "down": nn.AvgPool2d(2)}[resample]
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(), _conv3(inputs, outputs))
        embedded = 2 * outputs if self.scale_shift else outputs
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.num_channels, embedded))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Dropout(config.dropout), _conv3(outputs, outputs)
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, inputs, H, W) and (N, 4 c) -> (N, outputs, H', W')."""
        norm, activation, conv = self.in_layers
        h = conv(self.resample(activation(norm(x))))
        shift = self.emb_layers(embedding)[:, :, None, None]
        norm, activation, dropout, conv = self.out_layers
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + shift)
        return self.skip_connection(self.resample(x)) + conv(dropout(activation(h)))


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of a feature map, with a residual connection."""

    def __init__(self, config: NetworkConfig, width: int, upsample: bool = False) -> None:
        super().__init__()
        self.heads = config.heads(width, upsample)
        self.heads_first = not config.use_new_attention_order
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W), same shape out."""
        qkv = self.qkv(self.norm(x).flatten(2))
        if self.heads_first:  # the legacy order of the channels: head, then q, k, v
            qkv = qkv.unflatten(1, (self.heads, 3, -1)).transpose(1, 2)
        else:
            qkv = qkv.unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(3, 4).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        return x + self.proj_out(h).view_as(x)


class Stage(nn.Sequential):
    """Layers in a row, of which the residual blocks take the embedding too."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, C, H, W) and (N, 4 c) -> (N, C', H', W')."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class FFParser(nn.Module):
    """Multiplies the spectrum of (width, size, size) maps by a learned complex weight."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(0.02 * torch.randn(width, size, size // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, size, size), same shape out."""
        weight = torch.view_as_complex(self.complex_weight.contiguous())  # in channels last it is not
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=x.shape[2:], norm="ortho")


def conv_units(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """3x3 convolutions in a row, each with dropout of feature maps, batch norm, LeakyReLU."""
    units = [
        _named(
            conv=_conv3(inputs, outputs),
            dropout=nn.Dropout2d(dropout),
            instnorm=nn.BatchNorm2d(outputs),  # its published name
            # Not in place: hooks on a layer's gradient, which comparisons use, forbid that.
            activation=nn.LeakyReLU(0.01),
        )
        for inputs, outputs in zip(widths, widths[1:])
    ]
    return _named(blocks=nn.Sequential(*units))


class Highway(nn.Module):
    """The conditioning network `hwm`: segments the image by itself and passes its features to the denoiser."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        base = config.num_channels // 4
        widths = [min(base * 2**stage, 15 * base) for stage in range(STAGES)]
        deepest, skips = widths[-1], widths[::-1]
        self.conv_blocks_context = nn.ModuleList(
            conv_units(i, o, o, dropout=config.cond_dropout) for i, o in zip([config.image_channels, *widths], widths)
        )
        bottleneck = (conv_units(deepest, deepest, dropout=config.cond_dropout) for _ in range(2))
        self.conv_blocks_context.append(nn.Sequential(*bottleneck))
        self.conv_blocks_localization = nn.ModuleList(
            nn.Sequential(conv_units(i + s, s), conv_units(s, o))
            for i, s, o in zip([deepest, *skips[1:]], skips, [*skips[1:], base])
        )
        self.seg_outputs = nn.ModuleList([nn.Conv2d(base, config.mask_channels, 1, bias=False)])
        if config.version == "v1":
            levels = config.level_widths
            injected = list(zip(levels[:-1], widths[: STAGES - 1]))
            self.conv_trans_blocks_a = nn.ModuleList(nn.Conv2d(g, width, 1) for g, width in injected)
            self.conv_trans_blocks_b = nn.ModuleList(nn.Conv2d(width, 1, 1) for _, width in injected)
            sizes = [config.image_size // 2 ** (depth + 1) for depth in range(len(injected))]
            self.ffparser = nn.ModuleList(FFParser(width, size) for size, (_, width) in zip(sizes, injected))
            self.bottleneck_proj = nn.Conv2d(deepest, levels[-1], 1)

    def _inject(self, x: Tensor, stage: int, feature: Tensor) -> Tensor:
        h = self.ffparser[stage](self.conv_trans_blocks_a[stage](feature))
        return x * self.conv_trans_blocks_b[stage](h) * h.mean(dim=(2, 3), keepdim=True)

    def forward(self, image: Tensor, features: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(N, C, S, S) and, for "v1", the denoiser's maps -> `cal` (N, M, S, S), the bottleneck, the expanded maps."""
        x, skips = image, []
        for stage in range(STAGES):
            skips.append(self.conv_blocks_context[stage](x))
            x = F.max_pool2d(skips[-1], 2)
            if stage < min(len(features), STAGES - 1):
                x = self._inject(x, stage, features[stage])
        bottleneck = x = self.conv_blocks_context[STAGES](x)
        expanded = []
        for stage, skip in zip(self.conv_blocks_localization, reversed(skips)):
            x = stage(torch.cat([_bilinear(x, 2), skip], dim=1))
            expanded.append(x)
        return self.seg_outputs[0](x).sigmoid(), bottleneck, expanded


class TorchMedSegDiff(nn.Module):
    """The conditional denoiser. Its initial weights are PyTorch's defaults: load others to compare."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width, levels = config.num_channels, config.level_widths
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        if config.class_cond:
            self.label_emb = nn.Embedding(config.num_label_classes, 4 * width)
        skips = self._build_down(config)
        deepest = levels[-1]
        self.middle_block = Stage(
            ResBlock(config, deepest, deepest), AttentionBlock(config, deepest), ResBlock(config, deepest, deepest)
        )
        self._build_up(config, skips)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, levels[0]), nn.SiLU(), _conv3(levels[0], config.out_channels))
        self.hwm = Highway(config)

    def _build_down(self, config: NetworkConfig) -> list[int]:
        """The contracting path; returns the widths of its skips."""
        width = config.num_channels
        stages, skips = [Stage(_conv3(config.in_channels, width))], [width]
        self.downsamplings = []
        for level, outputs in enumerate(config.level_widths):
            for _ in range(config.num_res_blocks):
                layers = [ResBlock(config, width, outputs)]
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, outputs))
                stages.append(Stage(*layers))
                width = outputs
                skips.append(width)
            if level < len(config.level_widths) - 1:
                self.downsamplings.append(len(stages))
                plain = _named(op=_conv3(width, width, stride=2))
                stages.append(Stage(ResBlock(config, width, width, "down") if config.resblock_updown else plain))
                skips.append(width)
        self.input_blocks = nn.ModuleList(stages)
        return skips

    def _build_up(self, config: NetworkConfig, skips: list[int]) -> None:
        width, stages = config.level_widths[-1], []
        for level, outputs in reversed(list(enumerate(config.level_widths))):
            for block in range(config.num_res_blocks + 1):
                layers = [ResBlock(config, width + skips.pop(), outputs)]
                width = outputs
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, outputs, upsample=True))
                if level and block == config.num_res_blocks:
                    plain = _named(resize=nn.Upsample(scale_factor=2), conv=_conv3(width, width))
                    layers.append(ResBlock(config, width, width, "up") if config.resblock_updown else plain)
                stages.append(Stage(*layers))
        self.output_blocks = nn.ModuleList(stages)

    def encode(self, image: Tensor, label: Optional[Tensor] = None) -> Condition:
        """What the denoiser needs of images (N, C, S, S) and, with class conditioning, labels (N,)."""
        if (label is not None) != self.config.class_cond:
            raise ValueError("a label goes with class conditioning, and only with it")
        first = self.input_blocks[0][0]
        stem = F.conv2d(image, first.weight[:, : self.config.image_channels], first.bias, padding=1)
        embedded = None if label is None else self.label_emb(label)
        if self.config.version == "v1":
            return Condition(stem, image=image, label=embedded)
        cal, _, expanded = self.hwm(image)
        half, quarter = _bilinear(expanded[3].detach(), 2), _bilinear(expanded[2].detach(), 4)
        return Condition(stem + torch.cat([half, half, quarter], dim=1), cal=cal, label=embedded)

    def denoise(self, mask_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Predict the noise in masks (N, M, S, S) of timesteps (N,), given the images' `encode`."""
        time = self.time_embed(timestep_embedding(t.to(mask_t.dtype), self.config.num_channels))
        embedding = time if condition.label is None else time + condition.label
        first = self.input_blocks[0][0]
        h = condition.stem + F.conv2d(mask_t, first.weight[:, self.config.seen_channels :], padding=1)
        skips = []
        for index, stage in enumerate(self.input_blocks):
            h = self._anchored(stage(h, embedding) if index else h, index, condition)
            skips.append(h)
        h, cal = self._met(h, skips, time, embedding, condition)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        out = self.out(h)
        target, variance = out.chunk(2, dim=1) if self.config.learn_sigma else (out, None)
        return Prediction(target, variance, cal)

    def _anchored(self, h: Tensor, index: int, condition: Condition) -> Tensor:
        """The output of input block `index` with what the image adds to it; in these versions the stem has it."""
        return h

    def _met(
        self, h: Tensor, skips: list[Tensor], time: Tensor, embedding: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """The deepest map once it has met the conditioning network's, and that one's mask."""
        if condition.image is None:
            return h, condition.cal
        cal, bottleneck, _ = self.hwm(condition.image, [skips[index] for index in self.downsamplings])
        return h + resized(self.hwm.bottleneck_proj(bottleneck), h.shape[2]), cal

    def forward(self, image: Tensor, mask_t: Tensor, t: Tensor, label: Optional[Tensor] = None) -> Prediction:
        """`encode` and `denoise` in one."""
        return self.denoise(mask_t, t, self.encode(image, label))


def set_dropout(module: nn.Module, probability: float) -> None:
    """Give every dropout below `module` this probability."""
    for layer in module.modules():
        if isinstance(layer, (nn.Dropout, nn.Dropout2d)):
            layer.p = probability


def load_parity_weights(network: nn.Module) -> None:
    """Fill `network` with the weights of every parity case: functions of name and shape."""
    state = network.state_dict()
    values = {n: torch.from_numpy(parameter(n, v.shape)) for n, v in state.items() if not n.endswith(COUNTER)}
    network.load_state_dict({**state, **values})
