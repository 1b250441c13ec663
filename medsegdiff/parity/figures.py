"""A replayed training curve as a figure and as numbers."""

from __future__ import annotations

import csv
from pathlib import Path

from medsegdiff.base.ownership import Ledger
from medsegdiff.parity.training import CURVES, Curve

WRITER = "parity"
"""By this name a ledger knows what is written here."""


def write_curve(curve: Curve, out: Path) -> None:
    """Write `NAME.csv` and `NAME.png` into the folder `out`: both curves, and their relative difference.

    Raises:
        InputError: the folder cannot be written, or a file in the way is not parity's own.
    """
    name = curve.case.name
    with Ledger(out, WRITER).together(f"{name}.png") as stage:
        _write_numbers(curve, stage / f"{name}.csv")
        _draw(curve, stage / f"{name}.png")


def _write_numbers(curve: Curve, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *(f"{name}_{side}" for name in CURVES for side in ("pytorch", "jittor"))])
        for step in range(len(curve.ours[CURVES[0]])):
            pairs = ((curve.case.arrays[name][step], curve.ours[name][step]) for name in CURVES)
            writer.writerow([step, *(f"{value:.8g}" for pair in pairs for value in pair)])


def _draw(curve: Curve, path: Path) -> None:
    from matplotlib.figure import Figure

    titles = {
        "loss_diff": "noise prediction loss",
        "vb": "variational bound (bits)",
        "loss_cal": "conditioning network's loss",
        "grad_norm": "gradient norm",
    }
    figure = Figure(figsize=(16, 6))
    axes = figure.subplots(2, len(CURVES), sharex=True, height_ratios=(3, 1))
    for column, name in enumerate(CURVES):
        ours = curve.ours[name]
        theirs = curve.case.arrays[name][: len(ours)]
        upper, lower = axes[0, column], axes[1, column]
        upper.plot(theirs, color="#d55e00", linewidth=3, alpha=0.5, label="PyTorch original")
        upper.plot(ours, color="#0072b2", linewidth=1, label="medsegdiff on Jittor")
        upper.set_title(titles[name])
        upper.set_yscale("log")
        lower.semilogy(abs(ours - theirs) / abs(theirs) + 1e-9, color="#555555", linewidth=1)
        lower.axhline(1e-2, color="#999999", linestyle=":", linewidth=1)
        lower.set_xlabel("training step")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].legend()
    axes[1, 0].set_ylabel("relative difference")
    figure.suptitle(f"{curve.case.name}: the same weights, images, timesteps and noise in both frameworks")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
