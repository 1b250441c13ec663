"""Version "new": anchor conditioning, as the public code computes it. The condition is of the image alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import functional as F
from medsegdiff.nn.highway import Highway
from medsegdiff.nn.unet import Condition, MedSegDiff
from medsegdiff.runtime.backend import Var, jt


@dataclasses.dataclass(frozen=True)
class AnchorCondition(Condition):
    """The conditioning network has run; its anchor is in the stem."""

    cal: Var
    """(N, M, S, S) in [0, 1]: the mask of the conditioning network."""


class AnchorNetwork(MedSegDiff):
    """The conditioning network's last maps are added to the denoiser's first."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.hwm = Highway(config, self.dropout_streams)

    def _condition(self, image: Var, label: Optional[Var]) -> AnchorCondition:
        seen = self.hwm(image)
        return AnchorCondition(self._stem(image, anchor(seen.expanded)), label, seen.cal)

    def _guide(
        self, h: Var, skips: Sequence[Var], t: Var, embedding: Var, condition: AnchorCondition
    ) -> tuple[Var, Var]:
        return h, condition.cal


def anchor(expanded: Sequence[Var]) -> Var:
    """(N, num_channels, S, S) of a `Highway`'s expanding path; no gradient flows back."""
    half, quarter = F.upsample_bilinear(expanded[3], 2), F.upsample_bilinear(expanded[2], 4)
    return jt.concat([half, half, quarter], dim=1).detach()
