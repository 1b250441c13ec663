"""One self-contained page on runs: what was trained on what, how it went, what it is worth, what it looks like."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from markupsafe import Markup

from medsegdiff import __version__
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.evaluation.metrics import METRICS
from medsegdiff.web.cases import choose, show
from medsegdiff.web.charts import Line, chart, run_look, running_mean, steps
from medsegdiff.web.runs import Run, read_runs

PAGE = "report.html"
WRITER = "report"
"""By this name a ledger knows what is written here."""

_BINS = 20
_UNKNOWN = "-"
Rows = list[tuple[str, list[str]]]


def write_report(folders: Sequence[Path], path: Path) -> Path:
    """Write the page on the runs in `folders`, see `read_runs`, to the file `path`; returns it.

    Raises:
        InputError: a folder holds no run, a file is damaged, or the page cannot be written or is not a report's.
    """
    ledger = Ledger(path.parent, WRITER)
    ledger.check([path.name])
    try:
        text = render(read_runs(folders))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of JSON of another shape
        given = ", ".join(map(str, folders))
        raise InputError(f"{given}: a file there is not what medsegdiff writes ({error!r}); write it anew") from error
    with ledger.together(path.name) as stage:
        (stage / path.name).write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def render(runs: list[Run]) -> str:
    """The page, as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("medsegdiff.web", "")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    ranked_by = next((run for run in runs if run.scores), None)
    chosen = choose(ranked_by.scores) if ranked_by else []
    usual, rare = _options(runs)
    return page.get_template("report.html.j2").render(
        run_look=run_look,
        runs=runs,
        version=__version__,
        headlines=[_headline(run) for run in runs],
        notes=list(dict.fromkeys(run.summary["note"] for run in runs if run.summary.get("note"))),
        curves=_curves(runs),
        scores=_scores(runs),
        conventions={k: v for run in runs for k, v in run.summary.get("conventions", {}).items()},
        trust=_trust(runs),
        cases=[show(kind, id, runs) for kind, id in chosen],
        ranked_by=ranked_by,
        speed=_speed(runs),
        data=_data(runs),
        usual=usual,
        rare=rare,
    )


def _headline(run: Run) -> str:
    dice = run.summary.get("metrics", {}).get("dice")
    if dice:
        return f"Dice {_interval(dice)}, {dice['n']} of {run.summary['images']['with ground truth']} images"
    best = max(run.curves.get("val_dice", []), key=lambda point: point[1], default=None)
    return f"validation Dice {best[1]:.3f} at step {best[0]:g}; not scored on test images" if best else "no scores yet"


def _interval(row: dict[str, Any]) -> str:
    interval = "" if row.get("low") is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['mean']:.3f}{interval}"


def _curves(runs: list[Run]) -> list[tuple[str, str, Markup]]:
    """(title, what it says, chart) of loss and validation."""
    found = []
    loss = [run.curves.get("loss", []) for run in runs]
    if any(loss):
        lines = [Line(points, f"{run_look(i)} faint") for i, points in enumerate(loss)]
        lines += [Line(running_mean(points), run_look(i)) for i, points in enumerate(loss)]
        said = _each(runs, [f"{p[0][1]:.3g} to {p[-1][1]:.3g} at step {p[-1][0]:g}" if p else "" for p in loss])
        title = "Training loss"
        text = "Faint: rows of log.csv. Strong: mean of the last ten."
        found.append((title, text, chart(lines, f"{title}: {said}", "step", "loss", log=True)))
    dice = [run.curves.get("val_dice", []) for run in runs]
    if any(dice):
        best = [max(points, key=lambda point: point[1], default=None) for points in dice]
        said = _each(runs, [f"best {point[1]:.3f} at step {point[0]:g}" if point else "" for point in best])
        lines = [Line(points, run_look(i), marked=True) for i, points in enumerate(dice)]
        values = [y for points in dice for _, y in points]
        ends = max(0, min(values) - 0.05), min(1, max(values) + 0.05)
        drawn = chart(lines, f"Validation Dice: {said}", "step", "Dice", y_range=ends)
        found.append(("Validation Dice", said, drawn))
    return found


def _scores(runs: list[Run]) -> Rows:
    known = [run.summary.get("metrics", {}) for run in runs]
    unit, tolerance = (
        " or ".join(sorted({_shown(run.summary[name]) for run in runs if name in run.summary}))
        for name in ("unit", "tolerance")
    )
    rows = [
        (metric.shown(unit, tolerance), [_interval(found[key]) if key in found else _UNKNOWN for found in known])
        for key, metric in METRICS.items()
    ]
    errors = [(run.summary.get("calibration") or {}).get("ece") for run in runs]
    rows.append(("Expected calibration error (best 0)", [_UNKNOWN if e is None else f"{e:.4f}" for e in errors]))
    return [row for row in rows if set(row[1]) != {_UNKNOWN}]


def _trust(runs: list[Run]) -> list[tuple[str, str, Markup]]:
    """(title, what it says, chart) of what tells how far the masks may be trusted."""
    found = []
    dice = [[score["dice"] for score in run.scores.values() if "dice" in score] for run in runs]
    if any(dice):
        edges = np.linspace(0, 1, _BINS + 1).tolist()
        lines = [
            Line(steps(edges, (np.histogram(values, edges)[0] / len(values)).tolist()), run_look(i))
            for i, values in enumerate(dice)
            if values
        ]
        said = _each(runs, [_distribution(values) for values in dice])
        title = "Distribution of Dice"
        found.append((title, said, chart(lines, f"{title}: {said}", "Dice", "share of the images", (0, 1))))
    calibration = [run.summary.get("calibration") or {} for run in runs]
    if any("observed" in known for known in calibration):
        lines = [Line([(0, 0), (1, 1)], "faint dashed")]
        for i, known in enumerate(calibration):
            pairs = zip(known.get("probability", ()), known.get("observed", ()))
            points = [(p, y) for p, y in pairs if p is not None and y is not None]
            lines.append(Line(points, run_look(i), marked=True))
        said = _each(runs, [f"expected calibration error {known['ece']:.4f}" if known else "" for known in calibration])
        text = f"On the dashed line a probability means what it says; below it, too much is called foreground. {said}"
        drawn = chart(lines, f"Calibration: {said}", "probability", "share that is foreground", (0, 1), (0, 1))
        found.append(("Calibration", text, drawn))
    retention = [run.summary.get("error retention") or {} for run in runs]
    if any(retention):
        lines = []
        for i, known in enumerate(retention):
            for key, look in (("curve", ""), ("oracle", " dashed")):
                lines.append(Line(list(zip(known.get("fraction", ()), known.get(key, ()))), f"{run_look(i)}{look}"))
        said = _each(runs, [f"area {k['area']:.3f}, by chance {k['random area']:.3f}" if k else "" for k in retention])
        text = (
            "Mean error of the images kept, those whose members agree most first; dashed: the least possible. "
            f"A curve that rises to the right means that a low agreement is a warning. {said}"
        )
        top = max(y for line in lines for _, y in line.points)
        drawn = chart(
            lines, f"Error retention: {said}", "share of the images kept", "mean of 1 - Dice", (0, 1), (0, top)
        )
        found.append(("Error retention", text, drawn))
    return found


def _distribution(values: list[float]) -> str:
    if not values:
        return ""
    poor = sum(value < 0.5 for value in values)
    return f"median {statistics.median(values):.3f}, {poor} of {len(values)} images below 0.5"


def _each(runs: list[Run], texts: list[str]) -> str:
    """A sentence of what is known of the runs, each after its name where there are several."""
    alone = len(runs) == 1
    known = [text[:1].upper() + text[1:] if alone else f"{run.name}: {text}" for run, text in zip(runs, texts) if text]
    return "; ".join(known) + "." if known else ""


def _speed(runs: list[Run]) -> Rows:
    def per_image(run: Run) -> Optional[float]:
        done = len(run.sampled.get("images", ())) - run.sampled.get("images_done_before", 0)
        return run.sampled["seconds"] / done if done > 0 and "seconds" in run.sampled else None

    def amount(value: Optional[float], unit: str) -> str:
        return _UNKNOWN if value is None else f"{value:.3g} {unit}"

    machines = [run.origin.get("machine", {}) for run in runs]
    rows = [
        ("Training, with validation and saving", [amount(run.seconds_per_step, "s a step") for run in runs]),
        ("Processor of the training", [f"{m['cpu']}, {m['threads']} threads" if m else _UNKNOWN for m in machines]),
        ("Segmenting, with start and files", [amount(per_image(run), "s an image") for run in runs]),
        (
            "Network evaluations of a mask",
            [str(run.sampled.get("network_evaluations_per_mask", _UNKNOWN)) for run in runs],
        ),
    ]
    return [row for row in rows if set(row[1]) != {_UNKNOWN}]


def _data(runs: list[Run]) -> Rows:
    """Where runs come from: folders, data, code."""
    columns = []
    for run in runs:
        origin, test = run.origin, run.summary.get("images", {})
        column = {"training": run.training, "predictions": run.predictions}
        column.update({f"training data: {k}": v for k, v in _flat(origin.get("dataset", {})).items()})
        column["test images"] = test and f"{test['evaluated']} of {test['with ground truth']} with a prediction"
        column["test data: fingerprint"] = run.sampled.get("dataset")
        column["weights"] = run.sampled.get("weights")
        column["code"] = _flat(origin.get("code") or {}).get("commit")
        column["command"] = origin.get("command")
        column.update({f"version of {k}": v for k, v in origin.get("versions", {}).items()})
        columns.append({key: str(value) for key, value in column.items() if value not in (None, {}, "")})
    return _table(columns)


def _flat(found: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by their path; of a list the length."""
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{before}{key} "))
        else:
            flat[before + key] = len(value) if isinstance(value, list) else value
    return flat


def _options(runs: list[Run]) -> tuple[Rows, Rows]:
    """The options of training and sampling: those that are no defaults or differ between runs, and all others."""
    columns = []
    for run in runs:
        sampling = {f"sample: {key}": value for key, value in run.sampled.get("sampling", {}).items()}
        columns.append({key: _shown(value) for key, value in {**run.config, **sampling}.items()})
    usual = {key: _shown(value) for key, value in RunConfig().flat().items()}
    usual.update({f"sample: {key}": _shown(value) for key, value in vars(SamplingConfig()).items()})
    rows = _table(columns)
    own = [row for row in rows if set(row[1]) != {usual.get(row[0])}]
    return own, [row for row in rows if row not in own]


def _shown(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return _UNKNOWN if value in ("", None) else str(value)


def _table(columns: list[dict[str, str]]) -> Rows:
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(key, [column.get(key, _UNKNOWN) for column in columns]) for key in keys]
