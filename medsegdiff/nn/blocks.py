"""Blocks of the denoiser, the guided-diffusion U-Net (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels.operations import attention, group_norm, join, upsample_nearest
from medsegdiff.nn import functional as F
from medsegdiff.nn.layers import Conv2d, Dropout, DropoutStreams, GroupNorm, Linear, PointwiseConv, SiLU
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import Var, jt, nn


class ResBlock(Part):
    """Residual block with the timestep embedding; `resample` is "", "up" or "down"."""

    def __init__(
        self, config: NetworkConfig, inputs: int, outputs: int, streams: DropoutStreams, resample: str = ""
    ) -> None:
        self.scale_shift = config.use_scale_shift_norm
        self.resample = {"": None, "up": upsample_nearest, "down": F.average_pool}[resample]
        self.in_layers = nn.Sequential(GroupNorm(inputs), SiLU(), Conv2d(inputs, outputs, 3))
        embedded = 2 * outputs if self.scale_shift else outputs
        self.emb_layers = nn.Sequential(OrderedDict({"1": Linear(4 * config.num_channels, embedded)}))  # 0 was SiLU
        self.out_layers = nn.Sequential(
            GroupNorm(outputs), SiLU(), Dropout(config.dropout, streams), Conv2d(outputs, outputs, 3, init="zero")
        )
        self.skip_connection = Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def execute(self, x: Var, embedding: Var, skip: Optional[Var] = None) -> Var:
        """(N, inputs, H, W) and the embedding (N, 4 c) after SiLU -> (N, outputs, H', W').

        A `skip` (N, C, H, W) is joined to `x`, with which it makes up the inputs.
        """
        if skip is not None:
            x = join(x, skip)
        embedded = self.emb_layers(embedding)
        scale, shift = jt.chunk(embedded, 2, dim=1) if self.scale_shift else (None, None)
        norm, _, conv = self.in_layers
        added, first = None if self.scale_shift else embedded, norm.of(silu=True)
        if self.resample is None:
            h = conv(x, added, norm=first)
        else:
            h, x = conv(self.resample(group_norm(x, *first)), added), self.resample(x)
        residual = x if self.skip_connection is None else self.skip_connection(x)
        norm, _, dropout, last = self.out_layers
        second = norm.of(scale, shift, silu=True)
        if dropout.acts:
            return last(dropout(group_norm(h, *second)), residual=residual)
        return last(h, residual=residual, norm=second)


class AttentionBlock(Part):
    """Self-attention over the pixels of a feature map, with a residual connection."""

    def __init__(self, config: NetworkConfig, width: int, upsample: bool = False) -> None:
        self.heads = config.heads(width, upsample)
        self.heads_first = not config.use_new_attention_order
        self.norm = GroupNorm(width)
        self.qkv = PointwiseConv(width, 3 * width)
        self.proj_out = PointwiseConv(width, width, init="zero")

    def execute(self, x: Var) -> Var:
        """(N, width, H, W), same shape out."""
        n, c, h, w = x.shape
        qkv = self.qkv(x, norm=self.norm.of())
        d = c // self.heads
        if self.heads_first:  # the legacy order of the channels: head, then q, k, v
            qkv = qkv.reshape(n * self.heads, 3, d, h * w)
            q, k, v = (qkv[:, part] for part in range(3))
        else:
            qkv = qkv.reshape(n, 3, self.heads, d, h * w)
            q, k, v = (qkv[:, part].reshape(n * self.heads, d, h * w) for part in range(3))
        return self.proj_out(attention(q, k, v).reshape(n, c, h, w), residual=x)


class Downsample(nn.Module):
    """Halves the resolution by a strided convolution."""

    def __init__(self, width: int) -> None:
        self.op = Conv2d(width, width, 3, stride=2)

    def execute(self, x: Var) -> Var:
        """(N, width, H, W) -> (N, width, H/2, W/2)."""
        return self.op(x)


class Upsample(Part):
    """Doubles the resolution: nearest neighbour, then a convolution."""

    def __init__(self, width: int) -> None:
        self.conv = Conv2d(width, width, 3)

    def execute(self, x: Var) -> Var:
        """(N, width, H, W) -> (N, width, 2H, 2W)."""
        return self.conv(upsample_nearest(x))


class Stage(nn.Sequential):
    """Layers in a row, of which the residual blocks take the embedding too."""

    def execute(self, x: Var, embedding: Var, *skip: Var) -> Var:
        """(N, C, H, W) and the embedding (N, 4 c) -> (N, C', H', W'); a skip goes to the first block."""
        for layer in self:
            x = layer(x, embedding, *skip) if isinstance(layer, ResBlock) else layer(x)
            skip = ()
        return x
