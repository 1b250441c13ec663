"""How folders of datasets are laid out: from a folder to its cases, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts import brats, dicom, folder, isic, nnunet, volume
from medsegdiff.data.layouts.pairs import masks_among
from medsegdiff.data.spec import DataSpec
from medsegdiff.io import labels
from medsegdiff.io.folders import DEEPEST, GLANCED, list_folder


class Layout(Protocol):
    """A module of this folder.

    Where its datasets may name overlapping regions, each a union of values, it also has `regions(root)`: of each region
    by its name the class of every value, 1 inside it, else 0.
    """

    def matches(self, root: Path) -> bool:
        """Whether a folder looks like this layout; it may be missing."""

    def find(self, root: Path, split: str, need_masks: bool = True) -> list[Case]:
        """The cases of a split of its own, "train" or "test"; of "test" none where the layout has no such split.

        Raises:
            InputError: there is no such dataset, or with `need_masks` an image lacks its mask.
        """

    def spec(self, root: Path, measure: Measure) -> DataSpec:
        """What the files' values mean: what the folder itself says of it, and what measuring the files finds.

        Raises:
            InputError: a description in it cannot be read.
        """


LAYOUTS: dict[str, Layout] = {  # in the order in which a folder is asked: what is more particular first
    "isic": isic,
    "nnunet": nnunet,
    "brats": brats,
    "dicom": dicom,
    "volume": volume,
    "folder": folder,
}
_WITH_VALIDATION = ("folder", "volume")


def choose(root: Path, name: str = "auto") -> str:
    """The name of a folder's layout; if it was detected, a note says so.

    Raises:
        InputError: there is no such folder, or "auto" finds no layout that fits.
    """
    if name != "auto":
        return name
    if not list_folder(root):
        raise InputError(f"{root}: the folder is empty; give the dataset's folder")
    for found, layout in LAYOUTS.items():
        if layout.matches(root):
            if found != "isic":
                screen.note(f"note: {root} is read as a dataset of the layout {found}")
            return found
    raise InputError(
        f"{root}: no dataset of a known layout, in it and the folders below it (down to {DEEPEST} levels, {GLANCED:,} "
        "entries); put images into images/ and masks of the same names into masks/, or give the dataset's own folder, "
        f"or `data_name` ({', '.join(LAYOUTS)})"
    )


def parse_labels(text: str, root: Path, name: str = "auto") -> dict[int, int]:
    """Labels as an option, see `io.labels.parse_labels`, or the name of a region that the dataset at `root` has.

    Raises:
        InputError: it is neither.
    """
    if not text or text[0] in "-0123456789":
        return labels.parse_labels(text)
    regions = getattr(LAYOUTS[choose(root, name)], "regions", lambda root: {})(root)
    if text in regions:
        return regions[text]
    known = f"has the regions {', '.join(regions)}" if regions else "names no regions"
    raise InputError(f'`labels` "{text[:40]}": {root} {known}; give one, or values as "1,2,4" or "1:1,2:1,4:2"')


def find_validation(root: Path, name: str, need_masks: bool = True) -> list[Case]:
    """The cases that a dataset has to validate with, where its layout knows such a split.

    Raises:
        InputError: as `Layout.find`.
    """
    return LAYOUTS[name].find(root, "validation", need_masks) if name in _WITH_VALIDATION else []


def check_apart(training: Sequence[Case], validation: Sequence[Case]) -> None:
    """Refuse names that training and validation cases, which go by their names from here on, have in common.

    Raises:
        InputError: there is one.
    """
    known = {case.id: case for case in training}
    for case in validation:
        if case.id in known:
            raise InputError(
                f"{case.image}: of the same name as {known[case.id].image}, which is in the training set; rename one"
            )


def masks_of(root: Path) -> set[Path]:
    """The masks of the dataset in a folder, and what is one by its name; none if it holds no dataset."""
    masks: set[Path] = set()
    for layout in LAYOUTS.values():
        if not masks and layout.matches(root):
            for split in ("test", "train"):
                with contextlib.suppress(InputError):  # it has no such split, or is no whole dataset
                    masks |= {case.mask for case in layout.find(root, split, False) if case.mask}
    return masks | masks_among(root)


def find_test(root: Path, name: str = "auto", kept: Collection[str] = ()) -> list[Case]:
    """The cases to test on, some perhaps without masks.

    In this order: the cases that training `kept` for testing, if the folder has them, with a note; the folder's own
    test split; all cases, with a note.

    Raises:
        InputError: the folder is no dataset.
    """
    name = choose(root, name)
    layout = LAYOUTS[name]
    if kept:
        everyone = [*layout.find(root, "train", False), *find_validation(root, name, False)]
        found = [case for case in everyone if case.id in set(kept)]
        if found:  # by their names alone, which another dataset may have, too
            lacking = len(set(kept)) - len(found)
            more = f"; {screen.counted(lacking, 'case')} not found" if lacking else ""
            said = f"{len(found)} of {screen.counted(len(everyone), 'case')}, kept for testing by training"
            screen.note(f"note: taken of {root}: {said}{more}")
            return found
    found = layout.find(root, "test", False)
    if not found:
        found = layout.find(root, "train", False)
        screen.note(f"note: {root} has no test split of its own; all its {len(found)} cases are taken")
    return found
