"""Pictures of predictions: contours over the image, and a figure of several images, one a row.

matplotlib is imported inside the functions: it takes most of a second, which other commands need not wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from medsegdiff.base.files import replacing
from medsegdiff.masks.decision import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A blue and a yellow that stay apart in every common colour blindness (Okabe and Ito 2008).
PREDICTION_COLOUR = (86, 180, 233)
TRUTH_COLOUR = (240, 228, 66)

MAX_STD = 0.5  # the largest standard deviation of values in [0, 1]: pictures share one scale

_HEAT = "magma"
_PANEL_INCHES = 1.5
_PANEL_PIXELS = 450  # the longer side of a panel in the figure, at 300 dots per inch


@dataclass(frozen=True)
class Row:
    """One row of `overview`; arrays of one height and width, probabilities and `std` float in [0, 1]."""

    id: str
    image: np.ndarray  # uint8 (H, W, 3)
    probability: np.ndarray  # (H, W), the ensemble's
    truth: np.ndarray | None = None  # bool (H, W)
    members: Sequence[np.ndarray] = ()  # probability of each member, (H, W)
    std: np.ndarray | None = None  # (H, W)
    dice: float | None = None


def overlay(
    image: np.ndarray,
    probability: np.ndarray,
    truth: np.ndarray | None = None,
    std: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the outline of the prediction (blue) and of the truth (yellow) over the image.

    Args:
        image: uint8 (H, W, 3).
        probability: float (H, W) in [0, 1]; its mask is where it exceeds one half.
        truth: bool (H, W), or none.
        std: standard deviation over the ensemble (H, W); it adds a panel to the right, black (0) over
            purple and orange to light yellow (`MAX_STD`).

    Returns:
        uint8 (H, W, 3), or (H, 2 W + a white gap, 3) with `std`.
    """
    width = round(max(image.shape[:2]) / 600)
    picture = image.astype(np.float32)
    if truth is not None:  # the wider line, below: where the outlines coincide both are seen
        picture = _draw_outline(picture, truth, TRUTH_COLOUR, width + 1)
    picture = _draw_outline(picture, probability > THRESHOLD, PREDICTION_COLOUR, width // 2)
    picture = np.round(picture).astype(np.uint8)
    if std is None:
        return picture

    from matplotlib import colormaps

    heat = colormaps[_HEAT](np.clip(std / MAX_STD, 0, 1), bytes=True)[..., :3]
    gap = np.full((len(picture), 4 * (width + 1), 3), 255, dtype=np.uint8)
    return np.concatenate([picture, gap, heat], axis=1)


def overview(rows: Sequence[Row], path: Path, max_members: int = 3) -> None:
    """Write a figure with a row per image: image, truth, members' masks, mean probability, uncertainty.

    The truth's outline is repeated over the mean probability. Columns that no row can fill are left out.

    Args:
        rows: the images, from top to bottom.
        path: the picture to write; its suffix chooses the format (`.png`, `.pdf`, `.svg`).
        max_members: how many members to show, at most.

    Raises:
        ValueError: there is no row.
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("an overview needs at least one row")
    columns = ["Image"]
    if any(row.truth is not None for row in rows):
        columns.append("Ground truth")
    columns += [f"Sample {i + 1}" for i in range(min(max_members, max(len(row.members) for row in rows)))]
    columns.append("Mean probability")
    if any(row.std is not None for row in rows):
        columns.append("Uncertainty (std)")

    heights = [row.image.shape[0] / row.image.shape[1] for row in rows]
    figure = Figure(
        figsize=(_PANEL_INCHES * len(columns) + 0.3, _PANEL_INCHES * sum(heights) + 0.55),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights)
    for panels, row in zip(axes, rows):
        for axis, column in zip(panels, columns):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(color="0.6", linewidth=0.4)
            _draw_panel(axis, row, column)
        label = row.id if row.dice is None else f"{row.id}\nDice {row.dice:.3f}"
        panels[0].set_ylabel(label, fontsize=6)
    for axis, column in zip(axes[0], columns):
        axis.set_title(column, fontsize=7, pad=3)
    _add_scale(figure, axes, columns)
    with replacing(path) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or "png", dpi=300)


def _draw_panel(axis: Axes, row: Row, column: str) -> None:
    values, look = None, {"cmap": "gray", "vmin": 0, "vmax": 1}
    if column == "Image":
        values = row.image
    elif column == "Ground truth":
        values = row.truth
    elif column == "Mean probability":
        values = row.probability
    elif column == "Uncertainty (std)":
        values, look = row.std, {"cmap": _HEAT, "vmin": 0, "vmax": MAX_STD}
    elif int(column.split()[1]) <= len(row.members):
        values = row.members[int(column.split()[1]) - 1] > THRESHOLD
    if values is None:
        axis.set_axis_off()
        return
    axis.imshow(_shrink(values), **look)
    if column == "Mean probability" and row.truth is not None and row.truth.any() and not row.truth.all():
        colour = np.array(TRUTH_COLOUR) / 255
        axis.contour(_shrink(row.truth), levels=[0.5], colors=[colour], linewidths=0.8)


def _add_scale(figure: Figure, axes: np.ndarray, columns: list[str]) -> None:
    """A colour bar under the lowest panel of the columns that need one; the panels stay aligned."""
    for name in ("Mean probability", "Uncertainty (std)"):
        column = axes[:, columns.index(name)] if name in columns else []
        drawn = next((axis for axis in column if axis.images), None)
        if drawn is not None:
            bar = figure.colorbar(
                drawn.images[0], cax=column[-1].inset_axes([0, -0.09, 1, 0.045]), orientation="horizontal"
            )
            low, high = drawn.images[0].get_clim()
            bar.set_ticks([low, (low + high) / 2, high], labels=[f"{low:g}", f"{(low + high) / 2:g}", f"{high:g}"])
            for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right")):
                label.set_horizontalalignment(side)  # no label sticks out of its column
            bar.ax.tick_params(labelsize=5, width=0.4, length=2, pad=1)
            bar.outline.set_linewidth(0.4)


def _shrink(values: np.ndarray) -> np.ndarray:
    """The array at the size of a panel: uint8 (h, w, 3) from a colour image, else float32 (h, w)."""
    height, width = values.shape[:2]
    scale = min(1.0, _PANEL_PIXELS / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    colour = values.ndim == 3
    picture = Image.fromarray(values if colour else values.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def _draw_outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], width: int) -> np.ndarray:
    """Blend the outline of `mask` into float32 (H, W, 3), with a shadow that sets it off from light skin."""
    edge = mask & ~_eroded(mask)
    for paint, reach, strength in (((0, 0, 0), width + 1, 0.4), (colour, width, 1)):
        opacity = strength * _softened(_dilated(edge, reach))[..., None]
        picture = picture * (1 - opacity) + np.array(paint, dtype=np.float32) * opacity
    return picture


def _softened(line: np.ndarray) -> np.ndarray:
    """A boolean line as opacity in [0, 1], its staircase smoothed."""
    grey = Image.fromarray(line.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.6))
    return np.minimum(np.asarray(grey, dtype=np.float32) / 160, 1)  # a line one pixel wide stays bright


def _dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    """Grow by `steps` pixels; crosses and squares in turn make it an octagon, nearly a disc."""
    for step in range(steps):
        mask = _grown_along(_grown_along(mask, 0), 1) if step % 2 else _grown_along(mask, 0) | _grown_along(mask, 1)
    return mask


def _grown_along(mask: np.ndarray, axis: int) -> np.ndarray:
    padded = np.pad(mask, [(1, 1) if i == axis else (0, 0) for i in range(2)])
    size = mask.shape[axis]
    return np.logical_or.reduce([padded.take(range(i, i + size), axis=axis) for i in range(3)])


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Shrink by one pixel; outside the picture counts as background, so a mask cut by it is closed there."""
    padded = np.pad(~mask, 1, constant_values=True)
    return ~_dilated(padded, 1)[1:-1, 1:-1]
