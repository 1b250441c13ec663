"""Version "v1": dynamic conditioning, filtered by the FF-Parser (MedSegDiff, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

import numpy as np

from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels.operations import device
from medsegdiff.nn import functional as F
from medsegdiff.nn.highway import STAGES, Highway
from medsegdiff.nn.layers import Conv2d, DropoutStreams
from medsegdiff.nn.unet import Condition, MedSegDiff, NetworkOutput
from medsegdiff.runtime.backend import Var, jt, nn, persistent


class FFParser(nn.Module):
    """A learned filter in the frequency domain: multiplies the spectrum of maps by a complex weight (section 3.3)."""

    def __init__(self, width: int, size: int) -> None:
        self.complex_weight = jt.zeros((width, size, size // 2 + 1, 2))

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the initial weights."""
        draw = rng.standard_normal(tuple(self.complex_weight.shape), dtype=np.float32)
        self.complex_weight.assign(persistent(draw * np.float32(0.02)))

    def execute(self, x: Var) -> Var:
        """(N, width, size, size), same shape out."""
        return F.fourier_filter(x, self.complex_weight)


class DynamicHighway(Highway):
    """Takes the denoiser's maps into its contracting path."""

    def __init__(self, config: NetworkConfig, streams: DropoutStreams) -> None:
        super().__init__(config, streams)
        widths = self.widths(config)
        levels = config.level_widths
        injected = list(zip(levels[:-1], widths[: STAGES - 1]))
        self.conv_trans_blocks_a = nn.ModuleList(*(Conv2d(g, width, 1, init="he") for g, width in injected))
        self.conv_trans_blocks_b = nn.ModuleList(*(Conv2d(width, 1, 1, init="he") for _, width in injected))
        self.ffparser = nn.ModuleList(
            *(FFParser(width, config.image_size // 2 ** (d + 1)) for d, (_, width) in enumerate(injected))
        )
        self.bottleneck_proj = Conv2d(widths[-1], levels[-1], 1, init="he")

    def _inject(self, x: Var, stage: int, feature: Var) -> Var:
        h = self.ffparser[stage](self.conv_trans_blocks_a[stage](feature))
        spatial = self.conv_trans_blocks_b[stage](h)
        # Sums over pixels, those of the gradients too, are in float64: Jittor adds one number after another.
        channel = h.float64().mean(dims=(2, 3), keepdims=True)
        return ((x * spatial).float64() * channel).float32()


@dataclasses.dataclass(frozen=True)
class DynamicCondition(Condition):
    """The image itself: the conditioning network sees the noisy mask too, by the denoiser's maps."""

    image: Var
    """(N, C, S, S)."""


class DynamicNetwork(MedSegDiff):
    """The conditioning network takes in the denoiser's maps at each step, and gives its deepest one back."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.hwm = DynamicHighway(config, self.dropout_streams)

    def denoise(self, mask_t: Var, t: Var, condition: Condition) -> NetworkOutput:
        """As of every version; in evaluation one mask at a time."""
        if self.is_training() or not device().BY_SAMPLE:
            return super().denoise(mask_t, t, condition)
        # In batches of other sizes it rounds differently.
        parts = []
        for row in range(mask_t.shape[0]):
            part = super().denoise(mask_t[row : row + 1], t[row : row + 1], condition.take([row]))
            jt.sync([value for value in part if value is not None])
            parts.append(part)
        return NetworkOutput(*(None if values[0] is None else jt.concat(values, dim=0) for values in zip(*parts)))

    def _condition(self, image: Var, label: Optional[Var]) -> DynamicCondition:
        return DynamicCondition(self._stem(image), label, image)

    def _guide(
        self, h: Var, skips: Sequence[Var], t: Var, embedding: Var, condition: DynamicCondition
    ) -> tuple[Var, Var]:
        seen = self.hwm(condition.image, [skips[index] for index in self.downsamplings])
        return h + F.fitted(self.hwm.bottleneck_proj(seen.bottleneck), h.shape[2]), seen.cal
