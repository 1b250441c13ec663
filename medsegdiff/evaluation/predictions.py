"""The files of predictions: finding them."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from medsegdiff.base.errors import InputError
from medsegdiff.io.predictions import NIFTI, PNG, find_predictions
from medsegdiff.io.volumes import is_volume, stem

PUBLISHED = "_output_ens"
"""How the published sampler's files end."""


@dataclass(frozen=True)
class Prediction:
    """The files of one image's prediction, named as in `medsegdiff.io.predictions`."""

    path: Path
    """`ID.png`, or what the published sampler wrote."""
    num_classes: int = 2

    @property
    def end(self) -> str:
        """How its companions' names end: those of a picture are PNG files."""
        return NIFTI if is_volume(self.path) else PNG

    @property
    def is_published(self) -> bool:
        """Whether this is the published sampler's only file, a probability at the network's resolution."""
        return self.path.stem.endswith(PUBLISHED)

    @property
    def probability(self) -> list[Path]:
        """The ensemble's probability, a file for each foreground class; empty where there is none.

        This property and the next ones raise an InputError where there are files for some classes only.
        """
        return self._files("prob")

    @property
    def cal(self) -> list[Path]:
        """The conditioning network's own probability, in the same way."""
        return self._files("cal")

    @property
    def members(self) -> list[list[Path]]:
        """The probability of every member, in the same way; empty where none was kept.

        Raises:
            InputError: a member is missing before the last one.
        """
        id = stem(self.path)
        name = re.compile(rf"{re.escape(id)}_member(\d+)(_class\d+)?{re.escape(self.end)}")
        files = self.path.parent.glob(f"{glob.escape(id)}_member*{self.end}")
        numbers = {int(found[1]): found[0] for found in (name.fullmatch(file.name) for file in files) if found}
        members = [self._files(f"member{index}", "_class") for index in range(max(numbers, default=-1) + 1)]
        if not all(members):
            absent = self.path.with_name(f"{id}_member{members.index([])}*{self.end}")
            raise InputError(f"{absent}: no such file, beside {numbers[max(numbers)]}; sample again")
        return members

    def _files(self, kind: str, before_class: str = "") -> list[Path]:
        ends = [""] if self.num_classes == 2 else [f"{before_class}{c}" for c in range(1, self.num_classes)]
        paths = [self.path.with_name(f"{stem(self.path)}_{kind}{end}{self.end}") for end in ends]
        there = [path for path in paths if path.is_file()]
        if there and len(there) < len(paths):
            absent = next(path for path in paths if path not in there)
            raise InputError(f"{absent}: no such file, beside {there[0].name}; sample again, or check `num_classes`")
        return there


def find(pred_dir: Path, ids: Collection[str], num_classes: int = 2) -> dict[str, Prediction]:
    """The predictions in a folder for images, by id.

    Of two classes also the published sampler's `<digits>_output_ens.jpg` or `.png`, for `ISIC_<digits>`.

    Raises:
        InputError: there is no such folder.
    """
    found = find_predictions(pred_dir)
    paths = {id: found.get(id) or (_published(pred_dir, id) if num_classes == 2 else None) for id in ids}
    return {id: Prediction(path, num_classes) for id, path in paths.items() if path}


def _published(pred_dir: Path, id: str) -> Optional[Path]:
    digits = re.fullmatch(r"ISIC_(\d+)", id)
    names = [f"{digits[1]}{PUBLISHED}.{suffix}" for suffix in ("png", "jpg")] if digits else []
    return next((Path(pred_dir) / name for name in names if (Path(pred_dir) / name).is_file()), None)
