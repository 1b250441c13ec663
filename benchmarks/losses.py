"""The losses of several trainings in one picture, from their `log.csv`: does bfloat16 converge as float32 does?

    medsegdiff train --config isic-small --data-dir DIR --steps 300 --out-dir results/fp32
    medsegdiff train --config isic-small --data-dir DIR --steps 300 --precision bf16 --out-dir results/bf16
    python -m benchmarks.losses results/fp32 results/bf16 [--out docs/training/precision.png]

Prints the means over the last half of the rows, and how far the others' are from the first's.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

LOSSES = ("loss_diff", "loss_cal")


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("docs/training/precision.png"))
    options = parser.parse_args()
    curves = {run.name: read(run / "log.csv") for run in options.runs}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(options.out, curves)
    first = next(iter(curves.values()))
    print("| run | " + " | ".join(LOSSES) + " |\n| --- |" + " --- |" * len(LOSSES))
    for name, curve in curves.items():
        half = len(curve["step"]) // 2
        means = [(curve[loss][half:].mean(), first[loss][half:].mean()) for loss in LOSSES]
        print(f"| {name} | " + " | ".join(f"{own:.5f} ({own / other - 1:+.2%})" for own, other in means) + " |")


def read(path: Path) -> dict[str, np.ndarray]:
    """Steps and losses of a log."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("step", *LOSSES)}


def draw(path: Path, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """A panel for each loss, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, loss in zip(figure.subplots(1, len(LOSSES)), LOSSES):
        for name, curve in curves.items():
            axes.plot(curve["step"], curve[loss], label=name, linewidth=1)
        axes.set(xlabel="step", ylabel=loss, yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
