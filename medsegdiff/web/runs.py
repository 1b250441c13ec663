"""Reading what `train`, `sample` and `evaluate` wrote, as runs: a training, what was predicted with it, its scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import followed, read_json, read_text, read_yaml
from medsegdiff.checkpoints.folder import BEST
from medsegdiff.evaluation.report import SUMMARY, TABLE
from medsegdiff.training.run_folder import CONFIG, EVENTS, LOG, RUN

_FILES = (LOG, RUN, SUMMARY)


@dataclass
class Run:
    """What is known of one run; what is not is empty, and listed in `missing`."""

    training: Optional[Path] = None
    predictions: Optional[Path] = None
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    """Options by name, of `config.yaml`."""
    origin: dict[str, Any] = field(default_factory=dict)
    """The training's `run.json`: versions, machine, data."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(step, value) of each row of `log.csv` that has one, by column."""
    events: list[dict[str, Any]] = field(default_factory=list)
    sampled: dict[str, Any] = field(default_factory=dict)
    """The predictions' `run.json`: weights, sampling, images, seconds."""
    summary: dict[str, Any] = field(default_factory=dict)
    """`metrics.json`."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """`metrics.csv`: metrics by image and name, as far as an image has them."""
    missing: list[str] = field(default_factory=list)

    @property
    def seconds_per_step(self) -> Optional[float]:
        """Wall-clock seconds of a training step, validations and checkpoints included; None if unknown."""
        steps, seconds, last = 0, 0.0, None
        for event in self.events:
            now = datetime.fromisoformat(event["time"]).timestamp()
            if last and event["event"] not in ("start", "resume"):
                steps, seconds = steps + event["step"] - last[0], seconds + now - last[1]
            last = event["step"], now
        return seconds / steps if steps else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs that `folders` hold, each the folder of a training or of predictions, or one that holds such folders.

    A training and the predictions made with its weights are one run. A training is found by its weights, too.

    Raises:
        InputError: a folder holds none, or a file is damaged.
    """
    found = list(dict.fromkeys(followed(path) for folder in folders for path in _below(Path(folder))))
    predicted = [run for run in map(_read_predictions, found) if run.predictions]
    trained = [path for path in found if (path / LOG).is_file() or _is_training(path)]
    for run in predicted:
        near = [path for path in [*Path(run.sampled.get("weights", "")).parents][:3] if path.name != BEST]
        run.training = run.training or next(filter(_is_training, near), None)
    runs = predicted + [Run(path) for path in trained if path not in [run.training for run in predicted]]
    for run in runs:
        if run.training:
            _read_training(run, run.training)
        _miss(run)
    _name(runs)
    return runs


def _below(folder: Path) -> list[Path]:
    """`folder`, if it is a run's, else those right in it that are."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a training or of predictions")
    within = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    held = [path for path in within if any((path / name).is_file() for name in _FILES)]
    if not held:
        raise InputError(
            f"{folder}: holds no training and no predictions ({', '.join(_FILES)}); give a folder that does"
        )
    return held[:1] if held[0] == folder else held


def _is_training(folder: Path) -> bool:
    return (folder / LOG).is_file() or ("dataset" in _read_json(folder / RUN) and (folder / CONFIG).is_file())


def _read_predictions(folder: Path) -> Run:
    run = Run()
    run.summary, ours = _read_json(folder / SUMMARY), _read_json(folder / RUN)
    evaluated = Path(run.summary.get("predictions", folder))
    if "sampling" in ours or not evaluated.is_dir():  # a folder may have been moved, and another be in its place
        evaluated = folder
    run.sampled = _read_json(evaluated / RUN)
    if "sampling" not in run.sampled:
        run.sampled = {}
    if run.summary or run.sampled:
        run.predictions = evaluated
    if (folder / LOG).is_file():  # all in one folder
        run.training = folder
    if run.summary and (folder / TABLE).is_file():
        for row in _read_table(folder / TABLE):
            run.scores[row["id"]] = {key: float(value) for key, value in row.items() if _is_number(value)}
    return run


def _read_training(run: Run, folder: Path) -> None:
    found = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    run.config = found if isinstance(found, dict) else {}
    origin = _read_json(folder / RUN)
    run.origin = {} if "sampling" in origin else origin
    with _written(folder / LOG) as there:
        for row in _read_table(there) if there else ():
            for column, value in row.items():
                if value:
                    run.curves.setdefault(column, []).append((float(row["step"]), float(value)))
    with _written(folder / EVENTS) as there:
        lines = read_text(there).splitlines() if there else ()
        run.events = [json.loads(line) for line in lines if line.endswith("}")]  # a crash may cut the last one short
        run.events = [{"time": e["time"], "event": e["event"], "step": e["step"]} for e in run.events]


def _miss(run: Run) -> None:
    """List what is missing, and the command that makes it."""
    if not run.training:
        run.missing.append("the training: neither named nor beside the weights; name its folder, too")
    elif not run.curves.get("val_dice"):
        run.missing.append("validation: the training had none, or none yet (train with a validation interval)")
    if not run.predictions:
        run.missing.append("predictions: none named; run medsegdiff sample and evaluate, and name their folder, too")
    elif not run.summary:
        run.missing.append(f"scores: run medsegdiff evaluate --pred-path {run.predictions}")
    if run.predictions and not any(run.predictions.glob("*_std*")):
        run.missing.append("uncertainty: run medsegdiff sample with --maps")
    run.missing += run.summary.get("not measured", [])


def _name(runs: list[Run]) -> None:
    """The shortest ends of the folders' paths that tell the runs apart."""
    paths = [(run.training or run.predictions or Path()).parts for run in runs]
    if len(set(paths)) < len(paths):
        paths = [(run.predictions or run.training or Path()).parts for run in runs]
    for run, path in zip(runs, paths):
        others = [other for other in paths if other != path]
        length = next((n for n in range(1, len(path)) if all(path[-n:] != other[-n:] for other in others)), len(path))
        run.name = "/".join(path[-length:])


@contextmanager
def _written(path: Path) -> Iterator[Optional[Path]]:
    """`path`, if there is such a file, in a block that fails where it is not understood."""
    try:
        yield path if path.is_file() else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path}: is not what train writes ({error}); run it again") from None


def _read_json(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _read_table(path: Path) -> list[dict[str, str]]:
    lines = read_text(path).splitlines(keepends=True)
    return list(csv.DictReader(io.StringIO("".join(line for line in lines if line.endswith("\n")))))


def _is_number(text: Optional[str]) -> bool:
    try:
        float(text or "x")
    except ValueError:
        return False
    return True
