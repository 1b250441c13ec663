"""Measurements in CSV files that are continued: what is there need not be measured again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.trained import Trained
from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SamplingConfig


class Records:
    """The rows of a CSV file, in which every number has the setting it was measured with."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read what is there.

        Raises:
            InputError: the file has other columns.
        """
        self.path, self.columns = path, list(columns)
        self.rows: list[dict[str, str]] = []
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != self.columns:
                raise InputError(f"{path}: its columns are not {','.join(self.columns)}; name another file")
            self.rows = list(reader)

    def find(self, **values: object) -> list[dict[str, str]]:
        """The rows that hold all these values."""
        return [row for row in self.rows if all(row[name] == str(value) for name, value in values.items())]

    def add(self, **values: object) -> None:
        """Append a row, to the file too."""
        row = {name: str(values[name]) for name in self.columns}
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            if new:
                table.writeheader()
            table.writerow(row)
        self.rows.append(row)


class Setting(NamedTuple):
    """What comparable scores have in common."""

    model: str
    """See `Trained.model`."""
    members: int
    """Masks averaged for each image."""
    images: int


Dice = dict[tuple[str, int], dict[str, float]]
"""By sampler and steps: the Dice of every image by its id."""


class Scores:
    """A file with the Dice of single images by sampler and steps."""

    def __init__(self, path: Path) -> None:
        self.records = Records(path, (*Setting._fields, "sampler", "steps", "id", "dice"))

    def read(self, setting: Setting) -> Dice:
        """What was measured of all images in a setting."""
        dice: Dice = {}
        for row in self.records.find(**setting._asdict()):
            dice.setdefault((row["sampler"], int(row["steps"])), {})[row["id"]] = float(row["dice"])
        return {way: values for way, values in dice.items() if len(values) == setting.images}

    def complete(self, trained: Trained, sampling: SamplingConfig) -> dict[str, float]:
        """The Dice of every image; those that are missing are sampled, each is written as it comes."""
        setting = Setting(trained.model, sampling.member_range[1], len(trained.dataset))
        way = {**setting._asdict(), "sampler": sampling.sampler, "steps": sampling.steps}
        there = {row["id"] for row in self.records.find(**way)}
        missing = [name for name in trained.dataset.ids if name not in there]
        for result in trained.segment(sampling, missing):
            self.records.add(**way, id=result.id, dice=f"{trained.dice(result.id, result.probability):.5f}")
        dice = {row["id"]: float(row["dice"]) for row in self.records.find(**way)}
        return {name: dice[name] for name in trained.dataset.ids}
