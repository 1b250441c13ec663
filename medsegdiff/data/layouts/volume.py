"""NIfTI volumes in `images/` and `labels/`, or a task of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.data.cases import Case
from medsegdiff.data.layouts import description
from medsegdiff.data.layouts.description import regions, spec
from medsegdiff.data.layouts.pairs import Pair, cases_of, holds, pair_of
from medsegdiff.io.volumes import is_volume

__all__ = ["find", "matches", "regions", "spec"]


def matches(root: Path) -> bool:
    """Whether there are volumes where this layout looks for them."""
    return holds(_pair(root, "train") or _pair(root, "test"), is_volume)


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The cases of a split; see `pairs.pair_of` and `pairs.cases_of`. Of a Decathlon task `imagesTr` are "train"."""
    pair = _pair(root, split)
    return cases_of(pair, is_volume, need_masks) if pair else []


def _pair(root: Path, split: str) -> Pair | None:
    return description.pair_of(root, split) or pair_of(root, split)
