"""Pictures in `images/` and masks in `masks/`, or in folders of such names, with or without `train/` and `test/`."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.data.cases import Case
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts.pairs import cases_of, holds, pair_of
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.pictures import is_picture


def matches(root: Path) -> bool:
    """Whether there are pictures where this layout looks for them."""
    return holds(pair_of(root, "train") or pair_of(root, "test"), is_picture)


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The cases of a split; see `pairs.pair_of` and `pairs.cases_of`."""
    pair = pair_of(root, split)
    return cases_of(pair, is_picture, need_masks) if pair else []


def spec(root: Path, measure: Measure) -> DataSpec:
    """What the pictures are, found out from them; their masks have two classes unless labels are given."""
    return measure().spec()
