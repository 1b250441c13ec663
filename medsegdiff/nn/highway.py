"""The conditioning network `hwm`: a plain U-Net over the image alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.kernels.operations import join
from medsegdiff.nn import functional as F
from medsegdiff.nn.layers import BatchNorm2d, Conv2d, Dropout, DropoutStreams
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import Var, jt, nn

STAGES = 5


class HighwayOutput(NamedTuple):
    """The maps of the conditioning network."""

    cal: Var
    """(N, mask channels, S, S) in [0, 1]: its own mask."""
    bottleneck: Var
    """(N, deepest width, S/32, S/32)."""
    expanded: list[Var]
    """After each stage of the expanding path, from S/16 to S; the last is (N, num_channels / 4, S, S)."""


class ConvUnit(nn.Module):
    """Convolution, dropout of feature maps, batch norm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, streams: DropoutStreams, dropout: float) -> None:
        self.conv = Conv2d(inputs, outputs, 3, init="he")
        self.dropout = Dropout(dropout, streams, channels=True)
        self.instnorm = BatchNorm2d(outputs)  # its published name

    def execute(self, x: Var) -> Var:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return jt.nn.leaky_relu(self.instnorm(self.dropout(self.conv(x))), 0.01)


class ConvUnits(Part):
    """Convolution units in a row."""

    def __init__(self, widths: Sequence[int], streams: DropoutStreams, dropout: float = 0.0) -> None:
        self.blocks = nn.Sequential(*(ConvUnit(a, b, streams, dropout) for a, b in zip(widths, widths[1:])))

    def execute(self, x: Var) -> Var:
        """(N, first width, H, W) -> (N, last width, H, W)."""
        return self.blocks(x)


class Highway(nn.Module):
    """Segments the image by itself and passes its features to the denoiser."""

    @staticmethod
    def widths(config: NetworkConfig) -> list[int]:
        """Channels after each stage of the contracting path."""
        base = config.num_channels // 4
        return [min(base * 2**stage, 15 * base) for stage in range(STAGES)]

    def __init__(self, config: NetworkConfig, streams: DropoutStreams) -> None:
        base, widths = config.num_channels // 4, self.widths(config)
        deepest, dropout = widths[-1], config.cond_dropout
        context = [
            ConvUnits((inputs, width, width), streams, dropout)
            for inputs, width in zip([config.image_channels, *widths], widths)
        ]
        bottleneck = nn.Sequential(*(ConvUnits((deepest, deepest), streams, dropout) for _ in range(2)))
        self.conv_blocks_context = nn.ModuleList(*context, bottleneck)
        skips = widths[::-1]
        inputs = [deepest, *skips[1:]]
        outputs = [*skips[1:], base]
        self.conv_blocks_localization = nn.ModuleList(
            *(
                nn.Sequential(ConvUnits((i + s, s), streams), ConvUnits((s, o), streams))
                for i, s, o in zip(inputs, skips, outputs)
            )
        )
        self.seg_outputs = nn.ModuleList(Conv2d(base, config.mask_channels, 1, bias=False, init="he"))

    def execute(self, image: Var, features: Sequence[Var] = ()) -> HighwayOutput:
        """(N, C, S, S) and, for a version that takes them in, the denoiser's map after each downsampling."""
        x, skips = image, []
        for stage in range(STAGES):
            skips.append(self.conv_blocks_context[stage](x))
            x = F.max_pool(skips[-1])
            if stage < min(len(features), STAGES - 1):
                x = self._inject(x, stage, features[stage])
        bottleneck = x = self.conv_blocks_context[STAGES](x)
        expanded = []
        for stage, skip in enumerate(reversed(skips)):
            x = join(F.upsample_bilinear(x, 2), skip)
            x = self.conv_blocks_localization[stage](x)
            expanded.append(x)
        return HighwayOutput(sigmoid(self.seg_outputs[0](x)), bottleneck, expanded)

    def _inject(self, x: Var, stage: int, feature: Var) -> Var:
        """The contracting path's map `x` after `stage`, with the denoiser's `feature` of that size taken in."""
        raise NotImplementedError
