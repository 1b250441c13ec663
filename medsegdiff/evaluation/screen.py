"""The report as tables for the screen."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medsegdiff.evaluation.metrics import METRICS
from medsegdiff.evaluation.report import Report
from medsegdiff.evaluation.summary import Comparison, Selection
from medsegdiff.masks.statistics import Summary

_MISSING_ON_SCREEN = 5
_ABREAST = 5  # metrics of the classes
_MEANINGS = 'What each number means: docs/metrics.md, and "conventions" in metrics.json.'
_COMPARED = {
    "cal": "conditioning network",
    "member": "one member",
    "ensemble": "ensemble",
    "ensemble - cal": "ensemble - network",
}


def tables(report: Report) -> Group:
    """All of the report, to be printed by a rich `Console`."""
    parts: list[RenderableType] = [_summary(report)]
    if report.num_classes > 2:
        parts += _classes(report)
    if report.patients:
        parts.append(_patients(report))
    if report.comparison:
        parts.append(_comparison(report.comparison))
    if report.selection:
        parts.append(_selection(report.selection))
    if report.missing:
        named = ", ".join(report.missing[:_MISSING_ON_SCREEN])
        more = len(report.missing) - _MISSING_ON_SCREEN
        named += f" and {more} more" if more > 0 else ""
        warning = f"{len(report.missing)} without a prediction, left out of the means: {named}"
        parts.append(Text(warning, style="bold"))
    parts += [Text(line) for line in (report.note, *report.gaps) if line]
    size = report.protocol.size
    compared = f"Published protocol: {report.protocol.name}, {size} x {size}. "
    parts.append(Text((compared if "published_iou" in report.summaries else "") + _MEANINGS, style="dim"))
    return Group(*parts)


def _table(title: str, left: tuple[str, ...], *right: str) -> Table:
    """An empty table, with the headings of its columns of words and of those of numbers."""
    table = Table(*left, title=title)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _summary(report: Report) -> Table:
    title = f"{len(report.scores)} of {report.expected} images have a prediction"
    table = _table(title, ("metric",), "mean", "std", "95 % interval")
    for key in METRICS:
        if key in report.summaries:
            row = report.summaries[key]
            table.add_row(report.label(key) + _of(row.n, report), *_cells(row))
        if key == "brier" and report.calibration:
            label = "Expected calibration error" + _of(report.calibration.images, report)
            table.add_row(label, f"{report.calibration.ece:.4f}", "-", "-")
    return table


def _classes(report: Report) -> list[Table]:
    """As many tables as the metrics need side by side."""
    names = [name for name, metric in METRICS.items() if metric.by_class]
    found = []
    for some in (names[start : start + _ABREAST] for start in range(0, len(names), _ABREAST)):
        headings = [METRICS[name].label.split()[0] for name in some]
        found.append(_table("Each foreground class at 0.5, mean over images", ("class",), *headings))
        for label in range(1, report.num_classes):
            rows = [report.summaries.get(f"{name}_class{label}") for name in some]
            found[-1].add_row(str(label), *(f"{row.mean:.4f}" if row else "-" for row in rows))
    return found


def _patients(report: Report) -> Table:
    count = next(iter(report.patients.values())).n
    title = f"Mean over {count} patients, each with the mean of its images"
    table = _table(title, ("metric",), "mean", "std", "95 % interval")
    for key, row in report.patients.items():
        table.add_row(report.label(key), *_cells(row))
    return table


def _comparison(comparison: Comparison) -> Table:
    title = f"Is the diffusion worth it? The same {comparison.images} images"
    table = _table(title, ("metric", "of"), "mean", "95 % interval")
    for key in comparison.metrics:
        for name, label in _COMPARED.items():
            first, last = name == "cal", name == "ensemble - cal"
            mean, _, interval = _cells(comparison.metrics[key][name], "+" if last else "")
            metric = METRICS[key].label.removesuffix(" protocol") if first else ""
            table.add_row(metric, label, mean, interval, end_section=last)
    return table


def _selection(selection: Selection) -> Table:
    title = f"Does the members' agreement tell good masks from bad? {selection.images} images"
    table = _table(title, ("error retention",), "value")
    correlation, retention = selection.correlation, selection.retention
    table.add_row("area under the curve, by agreement", f"{retention.area:.4f}")
    table.add_row("least possible (best images kept first)", f"{retention.oracle_area:.4f}")
    table.add_row("by chance", f"{retention.random_area:.4f}")
    rank = "-" if math.isnan(correlation) else f"{correlation:+.4f}"
    table.add_row("Spearman's rank correlation of agreement and Dice", rank)
    table.add_row("images that agree because all members are empty", str(selection.empty))
    return table


def _of(images: int, report: Report) -> str:
    """A remark on a row that is over fewer images than the others."""
    return "" if images == len(report.scores) else f" ({images} images)"


def _cells(row: Summary, sign: str = "") -> tuple[str, str, str]:
    """Mean, standard deviation and interval; of a single image the mean alone."""
    one = math.isnan(row.std)
    interval = "-" if one else f"{row.low:{sign}.4f} to {row.high:{sign}.4f}"
    return f"{row.mean:{sign}.4f}", "-" if one else f"{row.std:.4f}", interval
