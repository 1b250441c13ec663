"""The table `images.csv` of a folder of predictions: what is known of each ensemble."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

from medsegdiff.base.errors import InputError

IMAGES = "images.csv"


class ImageRow(NamedTuple):
    """What `images.csv` says of one image."""

    members: int
    empty: int
    """How many of them have no foreground at all."""
    agreement: Optional[float]
    """Expected Dice of two members, in [0, 1], two empty ones being alike; none for a single one."""


_COLUMNS = ["id", *ImageRow._fields]


def write_ensembles(folder: Path, ensembles: Mapping[str, ImageRow]) -> None:
    """Write the table `images.csv`, by id, into a folder that has none."""
    with (Path(folder) / IMAGES).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for id, (members, empty, agreement) in ensembles.items():
            table.writerow((id, members, empty, "" if agreement is None else f"{agreement:.6f}"))


def read_ensembles(pred_dir: Path) -> dict[str, ImageRow]:
    """Read that table, by id; empty where there is none.

    Raises:
        InputError: the table cannot be read.
    """
    path = Path(pred_dir) / IMAGES
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames != _COLUMNS:
                raise ValueError(f"columns {rows.fieldnames}")
            return {row["id"]: _ensemble(row) for row in rows}
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: is not the table of {', '.join(_COLUMNS)} that sample writes; sample again"
        ) from error


def _ensemble(row: dict[str, str]) -> ImageRow:
    ensemble = ImageRow(int(row["members"]), int(row["empty"]), float(row["agreement"]) if row["agreement"] else None)
    if not 0 <= ensemble.empty <= ensemble.members or not 0 <= (ensemble.agreement or 0) <= 1:
        raise ValueError(f"{row}")
    return ensemble
