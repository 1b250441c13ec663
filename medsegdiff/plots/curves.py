"""Curves over a set of images. matplotlib is imported inside: it takes most of a second."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.base.files import replacing
from medsegdiff.masks.uncertainty import Retention


def draw_retention(retention: Retention, path: Path, error: str, confidence: str) -> None:
    """Draw the error-retention curve with the truly best order and that by chance.

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
