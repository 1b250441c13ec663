"""nnU-Net's raw datasets: `imagesTr/ID_0000.nii.gz`, `labelsTr/ID.nii.gz`, `dataset.json`; volumes or pictures."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.data.cases import Case, by_channel, is_image, list_images
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts import description
from medsegdiff.data.layouts.pairs import cases_of
from medsegdiff.data.spec import DataSpec


def matches(root: Path) -> bool:
    """Whether `imagesTr` has files with the numbers of channels."""
    pair = description.pair_of(root, "train")
    return pair is not None and bool(by_channel(list_images(pair.images)))


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The cases of `imagesTr` as "train", or those of `imagesTs` as "test" if they have masks in `labelsTs`."""
    pair = description.pair_of(root, split)
    return cases_of(pair, is_image, need_masks) if pair else []


def spec(root: Path, measure: Measure) -> DataSpec:
    """What the files are, with the labels of `dataset.json`."""
    return description.spec(root, measure)


def regions(root: Path) -> dict[str, dict[int, int]]:
    """Those of `dataset.json`."""
    return description.regions(root)
