"""Predictions against ground truth: per-image metrics, their summary, a table, CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import PIL
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table
from rich.text import Text

import medsegdiff
from medsegdiff.data.images import read_mask
from medsegdiff.masks.files import find_predictions, read_mask_png, read_probability, resize_probability
from medsegdiff.masks.metrics import EMPTY_CONVENTION, overlap, published_iou_dice
from medsegdiff.masks.statistics import Summary, summarise
from medsegdiff.runtime.errors import InputError
from medsegdiff.runtime.files import make_folder, replacing

METRICS = {
    "published_iou": "IoU, published protocol",
    "published_dice": "Dice, published protocol",
    "dice": "Dice at 0.5",
    "iou": "IoU at 0.5",
    "precision": "Precision at 0.5",
    "recall": "Recall at 0.5",
}

_MISSING_ON_SCREEN = 5


@dataclass(frozen=True)
class Score:
    """One image's metrics, by the keys of `METRICS`, and the prediction file they come from."""

    id: str
    prediction: Path
    metrics: dict[str, float]


@dataclass(frozen=True)
class Report:
    """The metrics of every image with a prediction; summaries are over these images alone."""

    scores: list[Score]
    summaries: dict[str, Summary]
    missing: list[str]
    protocol_size: int
    note: str = ""

    @property
    def expected(self) -> int:
        """The number of images with a ground truth."""
        return len(self.scores) + len(self.missing)

    @property
    def conventions(self) -> dict[str, str]:
        """What the numbers mean, in words."""
        size = f"{self.protocol_size} x {self.protocol_size}"
        return {
            "published protocol": f"probability and truth bilinear to {size}, both cut at "
            "0.1, 0.3, 0.5, 0.7, 0.9, scores averaged over the cuts",
            "at 0.5": "the mask file (*_output_ens: resized to the truth first) against truth > 127 of 255, "
            "at the truth's own resolution",
            "empty masks (at 0.5)": EMPTY_CONVENTION,
            "interval": "95 % percentile bootstrap of the mean over images; std is the sample's",
        }

    def table(self) -> Group:
        """The summary for the screen, to be printed by a rich `Console`."""
        table = Table("metric", title=f"{len(self.scores)} of {self.expected} images have a prediction")
        for heading in ("mean", "std", "95 % interval"):
            table.add_column(heading, justify="right")
        for key, label in METRICS.items():
            row = self.summaries[key]
            one = math.isnan(row.std)
            interval = "-" if one else f"{row.low:.4f} to {row.high:.4f}"
            table.add_row(label, f"{row.mean:.4f}", "-" if one else f"{row.std:.4f}", interval)
        lines = [Text(f"{name}: {text}", style="dim") for name, text in self.conventions.items()]
        if self.note:
            lines.insert(0, Text(self.note))
        if self.missing:
            named = ", ".join(self.missing[:_MISSING_ON_SCREEN])
            more = len(self.missing) - _MISSING_ON_SCREEN
            named += f" and {more} more" if more > 0 else ""
            warning = f"{len(self.missing)} without a prediction, left out of the means: {named}"
            lines.insert(0, Text(warning, style="bold"))
        return Group(table, *lines)

    def write(self, out: Path) -> None:
        """Write `metrics.csv` (a row per image) and `metrics.json` (summary and conventions) into `out`.

        Raises:
            InputError: the folder cannot be written to.
        """
        out = make_folder(out)
        with replacing(out / "metrics.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", *METRICS, "prediction"])
            for score in self.scores:
                rows.writerow([score.id, *(score.metrics[key] for key in METRICS), score.prediction.name])
        content = {
            "metrics": {key: _without_nan(self.summaries[key]) for key in METRICS},
            "images": {
                "with ground truth": self.expected,
                "evaluated": len(self.scores),
                "missing": len(self.missing),
            },
            "missing": self.missing,
            "note": self.note,
            "protocol_size": self.protocol_size,
            "conventions": self.conventions,
            "versions": {
                "medsegdiff": medsegdiff.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
        }
        with replacing(out / "metrics.json") as path:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def evaluate(
    pred_dir: Path,
    truth: dict[str, Path],
    out: Optional[Path] = None,
    protocol_size: int = 256,
    note: str = "",
    seed: int = 0,
) -> Report:
    """Measure the predictions in `pred_dir` against the ground truth.

    Per image, the published protocol (`published_iou_dice` on the probability, or on the mask where there
    is no probability, at `protocol_size`) and the overlap of the binary masks at the original resolution.
    A file of the published sampler, `<digits>_output_ens.jpg` or `.png` for the id `ISIC_<digits>`, has the
    network's resolution: for the overlap it is resized to the truth's and cut at one half.

    Args:
        pred_dir: the folder of the predictions, see `medsegdiff.masks.files`.
        truth: ground truth mask of every image to evaluate, by id; grey levels 0 and 255, or 0 and 1.
        out: where to write `metrics.csv` and `metrics.json`, if anywhere.
        protocol_size: side of the square, in pixels, that the published protocol compares at.
        note: a line about the dataset, repeated in the report.
        seed: of the bootstrap.

    Raises:
        InputError: there is no truth or no prediction for any of it, a file cannot be read, or a prediction
            differs in size from its truth.
    """
    if not truth:
        raise InputError(f"{pred_dir}: there is no ground truth to compare with; give at least one mask")
    found = find_predictions(pred_dir)
    found.update(_published_names(pred_dir, truth.keys() - found.keys()))
    present = [id for id in truth if id in found]
    if not present:
        raise InputError(
            f"{pred_dir}: holds no prediction for any of the {len(truth)} ground truths; "
            f"expected files such as {next(iter(truth))}.png"
        )
    console = Console(stderr=True)
    scores = [
        Score(id, found[id], _measure(found[id], truth[id], protocol_size))
        for id in track(present, "Evaluating", console=console, transient=True, disable=not console.is_terminal)
    ]
    report = Report(
        scores=scores,
        summaries={key: summarise([score.metrics[key] for score in scores], seed) for key in METRICS},
        missing=[id for id in truth if id not in found],
        protocol_size=protocol_size,
        note=note,
    )
    if out is not None:
        report.write(Path(out))
    return report


def truth_from_folder(folder: Path) -> dict[str, Path]:
    """Map ids to the masks in a folder, sorted: `ID_Segmentation.png` in any case, else plain `ID.png`.

    Where at least one name ends in `_Segmentation`, the other pictures are not taken for masks.

    Raises:
        InputError: there is no such folder, or no PNG in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder that holds the ground truth masks")
    pictures = {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    if not pictures:
        raise InputError(f"{folder}: holds no PNG; give the folder with ID_Segmentation.png or ID.png masks")
    ending = re.compile(r"_segmentation$", re.IGNORECASE)
    named = {ending.sub("", stem): path for stem, path in pictures.items() if ending.search(stem)}
    return named or pictures


def _published_names(pred_dir: Path, ids: set[str]) -> dict[str, Path]:
    found = {}
    for id in ids:
        digits = re.fullmatch(r"ISIC_(\d+)", id)
        for suffix in ("jpg", "png") if digits else ():
            path = Path(pred_dir) / f"{digits[1]}_output_ens.{suffix}"
            if path.is_file():
                found[id] = path
    return found


def _measure(prediction: Path, truth: Path, protocol_size: int) -> dict[str, float]:
    target = _read_truth(truth)
    if prediction.stem.endswith("_output_ens"):
        probability = read_probability(prediction)
        mask = resize_probability(probability, target.shape) > 0.5
    else:
        mask = read_mask_png(prediction)
        _check_size(mask, prediction, target, truth)
        soft = prediction.with_name(f"{prediction.stem}_prob.png")
        probability = read_probability(soft if soft.is_file() else prediction)
        _check_size(probability, soft, target, truth)

    square = protocol_size, protocol_size
    iou, dice = published_iou_dice(resize_probability(probability, square), resize_probability(target, square))
    return {"published_iou": iou, "published_dice": dice, **overlap(mask, target > 0.5)._asdict()}


def _read_truth(path: Path) -> np.ndarray:
    """The mask as float32 (H, W) in [0, 1]."""
    grey = read_mask(path)
    top = int(grey.max())
    if 1 < top <= 127:
        raise InputError(f"{path}: its highest grey level is {top}; write masks with 0 and 255, or 0 and 1")
    return grey.astype(np.float32) / (1 if top == 1 else 255)


def _check_size(array: np.ndarray, path: Path, target: np.ndarray, truth: Path) -> None:
    if array.shape != target.shape:
        (height, width), (true_height, true_width) = array.shape, target.shape
        raise InputError(
            f"{path}: is {width} x {height} pixels, but its ground truth {truth} is "
            f"{true_width} x {true_height}; write predictions at the original resolution"
        )


def _without_nan(summary: Summary) -> dict[str, Optional[float]]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in summary._asdict().items()
    }
