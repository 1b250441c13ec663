"""What an evaluation found, and the files that it is written to."""

from __future__ import annotations

import csv
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import PIL

import medsegdiff
from medsegdiff.base.ownership import Ledger
from medsegdiff.evaluation.measure import Score
from medsegdiff.evaluation.metrics import METRICS, USUAL, Rules, columns
from medsegdiff.evaluation.summary import Calibration, Comparison, Selection
from medsegdiff.masks import surface
from medsegdiff.masks.metrics import EMPTY_CONVENTION
from medsegdiff.masks.protocols import Protocol
from medsegdiff.masks.statistics import Summary
from medsegdiff.masks.uncertainty import CALIBRATION_BINS
from medsegdiff.plots.curves import draw_retention

TABLE, SUMMARY, RETENTION = "metrics.csv", "metrics.json", "retention.png"
WRITER = "evaluate"
"""By this name a ledger knows what is written here."""


@dataclass(frozen=True)
class Report:
    """The metrics of every image with a prediction; all else is over these images alone."""

    scores: list[Score]
    summaries: dict[str, Summary]
    """By the names of `METRICS` and, of more than two classes, of `class_metrics`."""
    missing: list[str]
    protocol: Protocol
    num_classes: int = 2
    rules: Rules = USUAL
    calibration: Optional[Calibration] = None
    comparison: Optional[Comparison] = None
    selection: Optional[Selection] = None
    gaps: tuple[str, ...] = ()
    """What was not measured, and why."""
    note: str = ""
    patients: dict[str, Summary] = field(default_factory=dict)
    """Over patients instead of images, where some have several."""

    @property
    def expected(self) -> int:
        """The number of images with a ground truth."""
        return len(self.scores) + len(self.missing)

    @property
    def unit(self) -> str:
        """Of distances: "pixels", "mm", or both where images differ."""
        return " or ".join(sorted({score.unit for score in self.scores}))

    def label(self, name: str) -> str:
        """A metric's name on the screen."""
        return METRICS[name].shown(self.unit, f"{self.rules.tolerance:g}")

    @property
    def conventions(self) -> dict[str, str]:
        """What the numbers mean, in words."""
        words = {
            "published protocol": self.protocol.convention,
            "at 0.5": "the mask file (*_output_ens: resized to the ground truth first) against ground truth > 127 of "
            "255, at the ground truth's own resolution",
            "empty masks (at 0.5)": EMPTY_CONVENTION,
            "empty masks (distances, lesions)": f"'{self.rules.empty}' is chosen; {surface.EMPTY_CONVENTION}",
            "interval": "95 % percentile bootstrap of the mean over images; std: the sample's standard deviation",
        }
        if self.num_classes > 2:
            words["at 0.5"] = "the mask file's classes against the ground truth's, at its own resolution"
            words["classes"] = (
                f"each of the {self.num_classes - 1} foreground classes is a binary problem of its own; "
                "an image's metric is the mean over those that occur in it or its prediction"
            )
        for name, metric in METRICS.items():
            if metric.meaning and name in self.summaries:
                words[self.label(name)] = metric.meaning
        if self.calibration:
            words["expected calibration error"] = (
                f"over {CALIBRATION_BINS} bins of probability, images of any resolution weighing the same"
            )
        if self.comparison:
            words["one member"] = "metrics of each member of an image, averaged over its members"
        if self.selection:
            words["error retention"] = (
                "mean of 1 - Dice over the images kept, averaged over how many are kept, "
                "those whose members agree most first; least possible: the truly best first; by chance: the mean"
            )
        return words

    def write(self, out: Path) -> None:
        """Write into `out`: `metrics.csv`, a row per image, `metrics.json`, all else, and `retention.png` if known.

        They appear together; an earlier evaluation's `retention.png` does not stay.

        Raises:
            InputError: the folder cannot be written to, or a file in the way is not an evaluation's.
        """
        ledger = Ledger(out, WRITER)
        with ledger.together(SUMMARY, [RETENTION] if ledger.owns(RETENTION) else []) as stage:
            with (stage / TABLE).open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                always, others = columns(self.num_classes)
                rows.writerow(["id", *always, "prediction", *others])
                for score in self.scores:
                    values = [[score.metrics.get(key, "") for key in keys] for keys in (always, others)]
                    rows.writerow([score.id, *values[0], score.prediction.name, *values[1]])
            if self.selection:
                draw_retention(self.selection.retention, stage / RETENTION, "1 - Dice at 0.5", "agreement of members")
            content = json.dumps(self._content(), indent=2, ensure_ascii=False)
            (stage / SUMMARY).write_text(f"{content}\n", encoding="utf-8", errors="backslashreplace")

    def _content(self) -> dict[str, Any]:
        return {
            "metrics": _plain(self.summaries),
            "patients": _plain(self.patients) or None,
            "calibration": self.calibration and _calibration(self.calibration),
            "comparison": self.comparison
            and {
                "images": self.comparison.images,
                **{key: _plain(rows) for key, rows in self.comparison.metrics.items()},
            },
            "error retention": self.selection and _selection(self.selection),
            "not measured": list(self.gaps),
            "images": {"with ground truth": self.expected, "evaluated": len(self.scores), "missing": len(self.missing)},
            "missing": self.missing,
            "predictions": str(self.scores[0].prediction.parent.absolute()),
            "ground truth": {score.id: str(score.truth.absolute()) for score in self.scores if score.truth},
            "note": self.note,
            "protocol": self.protocol.name,
            "protocol_size": self.protocol.size,
            "num_classes": self.num_classes,
            "empty": self.rules.empty,
            "tolerance": self.rules.tolerance,
            "unit": self.unit,
            "conventions": self.conventions,
            "versions": {
                "medsegdiff": medsegdiff.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
        }


def check_free(out: Path) -> None:
    """Refuse a folder where a report would overwrite files that are not an evaluation's.

    Raises:
        InputError: there is such a file.
    """
    Ledger(out, WRITER).check([TABLE, SUMMARY, RETENTION])


def _calibration(calibration: Calibration) -> dict[str, Any]:
    share, probability, observed = calibration.bins
    with np.errstate(invalid="ignore"):  # of empty bins
        means = {"probability": probability / share, "observed": observed / share}
    return {
        "ece": calibration.ece,
        "images": calibration.images,
        "bins": len(share),
        "share": share.tolist(),
        **{name: [_finite(value) for value in values.tolist()] for name, values in means.items()},
    }


def _selection(selection: Selection) -> dict[str, Any]:
    retention = selection.retention
    return {
        "images": selection.images,
        "images with empty members alone": selection.empty,
        "error": "1 - Dice at 0.5",
        "confidence": "agreement of members",
        "area": retention.area,
        "oracle area": retention.oracle_area,
        "random area": retention.random_area,
        "spearman": _finite(selection.correlation),
        "fraction": retention.fraction.tolist(),
        "curve": retention.curve.tolist(),
        "oracle": retention.oracle.tolist(),
    }


def _plain(rows: dict[str, Summary]) -> dict[str, dict[str, Optional[float]]]:
    return {key: {name: _finite(value) for name, value in row._asdict().items()} for key, row in rows.items()}


def _finite(value: float) -> Optional[float]:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
