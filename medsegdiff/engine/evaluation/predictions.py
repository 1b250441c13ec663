"""The files of predictions: finding them and what `sample` says of their ensembles."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from medsegdiff.masks.files import find_predictions
from medsegdiff.runtime.errors import InputError

IMAGES = "images.csv"

_PUBLISHED = "_output_ens"


@dataclass(frozen=True)
class Prediction:
    """The files of one image's prediction, named as in `medsegdiff.masks.files`."""

    path: Path
    """`ID.png`, or what the published sampler wrote."""
    num_classes: int = 2

    @property
    def is_published(self) -> bool:
        """Whether this is the published sampler's only file, a probability at the network's resolution."""
        return self.path.stem.endswith(_PUBLISHED)

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
        """The probability of every member, in the same way; empty where none was kept."""
        numbered = (self._files(f"member{index}", "_class") for index in itertools.count())
        return list(itertools.takewhile(bool, numbered))

    def _files(self, kind: str, before_class: str = "") -> list[Path]:
        ends = [""] if self.num_classes == 2 else [f"{before_class}{c}" for c in range(1, self.num_classes)]
        paths = [self.path.with_name(f"{self.path.stem}_{kind}{end}.png") for end in ends]
        there = [path for path in paths if path.is_file()]
        if there and len(there) < len(paths):
            absent = next(path for path in paths if path not in there)
            raise InputError(f"{absent}: no such file, beside {there[0].name}; sample again, or check --num-classes")
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
    names = [f"{digits[1]}{_PUBLISHED}.{suffix}" for suffix in ("png", "jpg")] if digits else []
    return next((Path(pred_dir) / name for name in names if (Path(pred_dir) / name).is_file()), None)


class Ensemble(NamedTuple):
    """What `images.csv` says of one image."""

    members: int
    agreement: Optional[float]
    """Expected Dice of two members, in [0, 1]; none for a single one."""


def read_ensembles(pred_dir: Path) -> dict[str, Ensemble]:
    """Read the table `images.csv` that `sample` leaves in its folder, by id; empty where there is none.

    Raises:
        InputError: the table cannot be read.
    """
    path = Path(pred_dir) / IMAGES
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["id"]: _ensemble(row) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: is not the table of id, members and agreement that sample writes; sample again"
        ) from error


def _ensemble(row: dict[str, str]) -> Ensemble:
    ensemble = Ensemble(int(row["members"]), float(row["agreement"]) if row["agreement"] else None)
    if ensemble.agreement is not None and not 0 <= ensemble.agreement <= 1:
        raise ValueError(f"agreement {row['agreement']}")
    return ensemble
