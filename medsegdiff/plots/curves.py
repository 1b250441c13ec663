"""Curves over a set of images. matplotlib is imported inside: it takes most of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsegdiff.base.files import replacing
from medsegdiff.masks.uncertainty import Retention

_WINDOW = 10


def draw_retention(retention: Retention, path: Path, error: str, confidence: str) -> None:
    """Draw the error-retention curve with the best possible order and a random one.

    Args:
        retention: the curve.
        path: the picture to write; its suffix chooses the format (`.png`, `.pdf`, `.svg`).
        error, confidence: what they are, in words.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3.8), layout="constrained")
    axis = figure.subplots()
    # Colours that stay apart in every common colour blindness (Okabe and Ito 2008), and line styles, too.
    axis.axhline(
        retention.random_area, color="0.5", linestyle=":", label=f"by chance (area {retention.random_area:.3f})"
    )
    marker = "." if retention.fraction.size < 30 else ""
    for values, area, label, colour, style in (
        (retention.curve, retention.area, f"by {confidence}", "#0072B2", "-"),
        (retention.oracle, retention.oracle_area, "least possible", "#D55E00", "--"),
    ):
        text = f"{label} (area {area:.3f})"
        axis.plot(retention.fraction, values, style, color=colour, marker=marker, label=text)
    axis.set(xlim=(0, 1), xlabel="fraction of the images kept, most trusted first", ylabel=f"mean of {error}")
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", frameon=False, fontsize="small")  # above: lines may be anywhere
    with replacing(path) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or "png", dpi=200)


def draw_progress(loss: Sequence[tuple[float, float]], dice: Sequence[tuple[float, float]], path: Path) -> None:
    """Draw a training's progress: the loss with its running mean, and the validation Dice if there is one.

    Args:
        loss, dice: (step, value) in order; a loss that is not above 0 is left out.
        path: the picture to write; its suffix chooses the format.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5 if dice else 3), layout="constrained")
    axes = figure.subplots(2 if dice else 1, sharex=True, squeeze=False)[:, 0]
    loss = [(step, value) for step, value in loss if value > 0]
    if loss:
        steps, values = np.transpose(loss)
        means = [values[max(0, end - _WINDOW) : end].mean() for end in range(1, len(values) + 1)]
        axes[0].plot(steps, values, color="#0072B2", alpha=0.35, linewidth=1, marker="." if len(loss) < 3 else "")
        axes[0].plot(steps, means, color="#0072B2", label=f"mean of the last {_WINDOW} rows")
        axes[0].set_yscale("log")
        axes[0].legend(frameon=False, fontsize="small")
    axes[0].set_ylabel("loss")
    if dice:
        best = max(dice, key=lambda point: point[1])
        axes[1].plot(*np.transpose(dice), color="#D55E00", marker=".")
        axes[1].plot(*best, "o", color="#D55E00", fillstyle="none", label=f"best {best[1]:.4f} at step {best[0]:g}")
        axes[1].set_ylabel("validation Dice")
        axes[1].legend(frameon=False, fontsize="small")
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    with replacing(path) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or "png", dpi=110)
