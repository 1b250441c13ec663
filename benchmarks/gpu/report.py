"""What came back, as tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Optional

from benchmarks.gpu.results import CURVE, NAME, Row

_LOSSES = ("loss_diff", "loss_cal")


def report(back: Path, published: Optional[Path] = None) -> str:
    """All results as Markdown; with the `published` logs, the training's losses beside theirs."""
    results: dict[str, list[Row]] = json.loads((back / NAME).read_text(encoding="utf-8"))
    lines = []
    for stage, rows in results.items():
        lines += ["", f"## {stage}", ""]
        table = _speed(rows) if stage == "speed" else [f"* {_told(row)}" for row in rows]
        lines += table
    curve = back / CURVE
    if published and curve.exists():
        lines += ["", "## losses", "", *_losses(curve, published)]
    return "\n".join(lines).strip()


def _told(row: Row) -> str:
    return f"{row['name']}: " + ", ".join(f"{name} {value}" for name, value in row.items() if name != "name")


def _speed(rows: list[Row]) -> list[str]:
    """Each work's variants with their ratios to PyTorch of the same precision: eager, and compiled."""
    found = {tuple(row["name"].split(": ")): row for row in rows}
    lines = ["| work | variant | ms | range | peak MiB | x eager | x compiled |", "| --- | --- |" + " ---: |" * 5]
    for (work, variant), row in found.items():
        if "error" in row:
            lines.append(f"| {work} | {variant} | {row['error']} | | | | |")
            continue
        precision = variant.split(",")[0].split()[-1]
        others = (found.get((work, f"PyTorch {precision}{kind}"), {}).get("ms") for kind in ("", ", compiled"))
        ratios = [f"{row['ms'] / other:.2f}" if other else "" for other in others]
        cells = [work, variant, f"{row['ms']:.1f}", f"{row['from']:.1f} to {row['to']:.1f}", str(row["peak_MiB"])]
        lines.append(f"| {' | '.join([*cells, *ratios])} |")
    return lines


def _losses(curve: Path, published: Path) -> list[str]:
    columns = [f"{side} {loss}" for loss in _LOSSES for side in ("here", "PyTorch", "Jittor")]
    lines = [f"| step | {' | '.join(columns)} |", "| ---: |" + " ---: |" * len(columns)]
    logs = [_read(path) for path in (curve, published / "Pytorch.csv", published / "Jittor.csv")]
    for step in sorted(set(logs[0]) & set(logs[1]) & set(logs[2])):
        cells = [f"{float(log[step][loss]):.4f}" for loss in _LOSSES for log in logs]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return lines


def _read(path: Path) -> dict[int, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {int(float(row["step"])): row for row in csv.DictReader(file)}
