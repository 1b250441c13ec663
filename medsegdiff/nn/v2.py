"""Version "v2", after the paper of MedSegDiff-V2 (arXiv 2301.11798): uncertain anchor, spectrum-space transformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

import numpy as np

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import functional as F
from medsegdiff.nn.anchor import UncertainAttention
from medsegdiff.nn.highway import Highway
from medsegdiff.nn.ssformer import SSFormer
from medsegdiff.nn.unet import Condition, MedSegDiff
from medsegdiff.runtime.backend import Var, nn


@dataclasses.dataclass(frozen=True)
class SpectrumCondition(Condition):
    """The conditioning network has run, and its gate is known."""

    cal: Var
    """(N, M, S, S) in [0, 1]: the mask of the conditioning network."""
    semantics: Optional[Var]
    """(N, deepest width, h, w): its deepest map, for the transformer."""
    gate: Var
    """(N, 1, S, S) in [0, 1]: where to look."""
    half_gate: Optional[Var] = None
    """(N, 1, S/2, S/2), likewise."""


class SpectrumNetwork(MedSegDiff):
    """The denoiser's first map is gated by where the conditioning network looks; their deepest maps meet."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.hwm = Highway(config, self.dropout_streams)
        self.anchors = nn.ModuleList(
            *(UncertainAttention(config.num_channels // 4) for _ in range(config.anchor_levels))
        )
        met = config.ssformer != "none"
        self.ssformer = SSFormer(config, Highway.widths(config)[-1]) if met else None

    def _condition(self, image: Var, label: Optional[Var]) -> SpectrumCondition:
        seen, semantics = self.hwm(image), None
        if self.ssformer is not None:
            semantics = F.fitted(self.ssformer.condition(seen.bottleneck), self.config.deepest_map)
        maps = (x.detach() if self.config.anchor_detach else x for x in reversed(seen.expanded))
        gates = [anchor(x) for anchor, x in zip(self.anchors, maps)]
        if self.config.image_input:
            stem = self._stem(image)
        else:
            bias, shape = self.input_blocks[0][0].bias, [image.shape[0], self.config.num_channels, *image.shape[2:]]
            stem = bias.reshape(1, -1, 1, 1).broadcast(shape)
        return SpectrumCondition(stem, label, seen.cal, semantics, *gates)

    def _anchored(self, h: Var, index: int, condition: SpectrumCondition) -> Var:
        if index == 0:
            return h * (1 + condition.gate)
        if condition.half_gate is not None and index == self.downsamplings[0]:
            return h * (1 + condition.half_gate)
        return h

    def _guide(
        self, h: Var, skips: Sequence[Var], t: Var, embedding: Var, condition: SpectrumCondition
    ) -> tuple[Var, Var]:
        if self.ssformer is None:
            return h, condition.cal
        # Filters are functions of time alone: where it is the same for all, as in sampling, once for all.
        rows = slice(1) if not self.is_training() and len(np.unique(t.numpy())) == 1 else slice(None)
        time = embedding[rows] if condition.label is None else self._embed(t[rows])
        return self.ssformer(h, condition.semantics, time, embedding), condition.cal
