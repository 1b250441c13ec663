"""nnU-Net's raw datasets: `imagesTr/ID_0000.nii.gz`, `labelsTr/ID.nii.gz`, `dataset.json`; volumes or pictures."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.data.cases import Case, by_channel, is_image, list_images
from medsegdiff.data.layouts.description import pair_of, regions, spec
from medsegdiff.data.layouts.pairs import cases_of
from medsegdiff.io.pictures import is_picture

__all__ = ["find", "matches", "regions", "spec"]


def matches(root: Path) -> bool:
    """Whether `imagesTr` has files with the numbers of channels, or pictures alone, as no other layout has there."""
    pair = pair_of(root, "train")
    files = list_images(pair.images) if pair else []
    return (bool(files) and all(map(is_picture, files))) or bool(by_channel(files))


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The cases of `imagesTr` as "train", or those of `imagesTs` as "test" if they have masks in `labelsTs`."""
    pair = pair_of(root, split)
    return cases_of(pair, is_image, need_masks) if pair else []
