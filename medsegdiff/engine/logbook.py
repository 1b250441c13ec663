"""Training logs: `log.csv` in the published columns, and TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.runtime.files import replacing, writing

_LOSSES = ("loss", "loss_diff", "vb", "loss_cal")
COLUMNS = (
    "step",
    "samples",
    *(f"{name}{suffix}" for name in _LOSSES for suffix in ("", "_q0", "_q1", "_q2", "_q3")),
    "grad_norm",
    "param_norm",
)


class Logbook:
    """Means of what happened since the last row, written every so many steps.

    `_q0` to `_q3` are means over the samples whose timestep fell into that quarter of the schedule;
    a quarter that no sample fell into is left empty.
    """

    def __init__(self, out: Path, tensorboard: bool) -> None:
        self.path = out / "log.csv"
        self._sums: dict[str, list[float]] = {}
        self._writer: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            with writing(out):
                self._writer = SummaryWriter(str(out / "tensorboard"))

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

    def write(self, step: int, samples: int) -> dict[str, float]:
        """Append the row of `step` and begin anew; returns the means.

        Raises:
            InputError: the disk is full or read-only.
        """
        means = {name: total / count for name, (total, count) in self._sums.items()}
        row = {"step": step, "samples": samples, **{name: f"{value:.8g}" for name, value in means.items()}}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        if not self.path.exists():
            writer.writeheader()
        writer.writerow(row)
        with writing(self.path), self.path.open("a") as file:
            file.write(text.getvalue())
        if self._writer is not None:
            for name, value in means.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        self._sums = {}
        return means

    def state(self) -> dict[str, list[float]]:
        """The sums and counts that no row has yet."""
        return {name: list(pending) for name, pending in self._sums.items()}

    def resume(self, step: int, pending: Mapping[str, list[float]]) -> None:
        """Continue after `step`: rows of later steps are dropped, the sums not yet written return."""
        self._sums = {name: list(values) for name, values in pending.items()}
        if not self.path.exists():
            return
        header, *rows = self.path.read_text().splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
        with replacing(self.path) as beside:
            beside.write_text("".join([header, *kept]))

    def close(self) -> None:
        """Flush what is buffered."""
        if self._writer is not None:
            self._writer.close()
