"""The training log: `log.csv` in the published columns, and the same for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import fsync, replacing, writing
from medsegdiff.base.reading import read_text
from medsegdiff.training.board import Board
from medsegdiff.training.run_folder import LOG

_LOSSES = ("loss", "loss_diff", "vb", "loss_cal")
_PARTS = ("", "_q0", "_q1", "_q2", "_q3")
COLUMNS = (
    *("step", "samples"),
    *(f"{name}{part}" for name in _LOSSES for part in _PARTS),
    *("grad_norm", "param_norm", "skipped"),
)
VALIDATION_COLUMNS = ("val_dice",)
DICE_COLUMNS = tuple(f"loss_dice{part}" for part in _PARTS)


class Logbook:
    """Means of what happened since the last row, written every so many steps.

    `_q0` to `_q3` are means over the samples whose timestep fell into that quarter of the schedule;
    a quarter that no sample fell into is left empty. `skipped` counts steps left out of the means.
    A training that is `validated`, or has a `dice` loss, has columns for these after the published ones.
    """

    def __init__(self, out: Path, tensorboard: bool, validated: bool = False, dice: bool = False) -> None:
        self.path = out / LOG
        self.columns = [*COLUMNS, *(VALIDATION_COLUMNS if validated else ()), *(DICE_COLUMNS if dice else ())]
        self.row = 0
        """The step of the last row."""
        self._sums: dict[str, list[float]] = {}
        self._board = Board(out) if tensorboard else None

    def add(self, losses: Mapping[str, np.ndarray], t: np.ndarray, steps: int, norms: Mapping[str, float]) -> None:
        """Take note of one training step.

        Args:
            losses: (N,) each, by name
            t: (N,) timesteps, of `steps`
            steps: length of the schedule
            norms: scalars by name
        """
        quarters = 4 * np.asarray(t) // steps
        for name, values in losses.items():
            for quarter, value in zip(quarters, values):
                self._note(name, float(value))
                self._note(f"{name}_q{quarter}", float(value))
        for name, value in norms.items():
            self._note(name, value)

    def _note(self, name: str, value: float) -> None:
        pending = self._sums.setdefault(name, [0.0, 0])
        pending[0] += value
        pending[1] += 1

    def skip(self) -> None:
        """Count a step that was skipped."""
        self._sums.setdefault("skipped", [0, 1])[0] += 1

    def validate(self, step: int, dice: float, picture: np.ndarray) -> None:
        """Take note of the validation after `step`; `picture` is uint8 (H, W, 3)."""
        self._sums["val_dice"] = [dice, 1]
        if self._board is not None:
            self._board.write(step, {"val_dice": dice}, picture)

    def write(self, step: int, samples: int) -> dict[str, float]:
        """Append the row of `step` and begin anew; returns the means.

        Raises:
            InputError: the disk is full or read-only.
        """
        means = {name: total / count for name, (total, count) in self._sums.items()}
        means.setdefault("skipped", 0)
        row = {"step": step, "samples": samples, **{name: f"{value:.8g}" for name, value in means.items()}}
        new = not self.path.exists() or not self.path.stat().st_size
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_text(self.columns, [row], header=new))
        if self._board is not None:
            self._board.write(step, {name: value for name, value in means.items() if name not in VALIDATION_COLUMNS})
        self._sums, self.row = {}, step
        return means

    def curve(self, column: str) -> list[tuple[float, float]]:
        """(step, value) of each row so far that has a value in `column`."""
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as file:
            return [(float(row["step"]), float(row[column])) for row in csv.DictReader(file) if row.get(column)]

    def flush(self) -> None:
        """Bring the rows to the disk.

        Raises:
            InputError: the disk is full.
        """
        if self.path.exists():
            with writing(self.path):
                fsync(self.path)
        if self._board is not None:
            self._board.flush()

    def state(self) -> dict[str, list[float]]:
        """The sums and counts that no row has yet."""
        return {name: list(pending) for name, pending in self._sums.items()}

    def resume(self, row: int, pending: Mapping[str, list[float]], validated: int = 0) -> None:
        """Continue after the row of step `row`: later ones are dropped, the sums not yet written return.

        The validation of step `validated`, which may lie after that row, is not done again.

        Columns that the file or those sums have and this run has not are kept.

        Raises:
            InputError: the file is no such log, or damaged.
        """
        self._sums, self.row = {name: list(values) for name, values in pending.items()}, row
        if self._board is not None:
            self._board.first = max(row, validated) + 1
        self.columns += [name for name in pending if name not in self.columns]
        if not self.path.exists() or not self.path.stat().st_size:
            return
        # A line that a crash cut short lacks its end.
        lines = [line for line in read_text(self.path).splitlines(keepends=True) if line[-1] == "\n"]
        try:
            reader = csv.DictReader(lines, strict=True)
            rows = list(reader)
            kept = [found for found in rows if int(found["step"]) <= row and None not in found]
            if lines and "step" not in (reader.fieldnames or ()):
                raise KeyError("step")
        except (csv.Error, KeyError, TypeError, ValueError):
            remedy = "move it elsewhere, and a new one is begun"
            raise InputError(f"{self.path}: is not the log that a training writes, or is damaged; {remedy}") from None
        self.columns += [name for name in (rows[0] if rows else ()) if name not in self.columns]
        with replacing(self.path) as beside:
            beside.write_text(_text(self.columns, kept, header=True), encoding="utf-8")

    def close(self) -> None:
        """Close what is open."""
        if self._board is not None:
            self._board.close()


def _text(columns: list[str], rows: list[dict[str, Any]], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
