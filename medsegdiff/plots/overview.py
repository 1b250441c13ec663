"""A figure of several images, one a row.

matplotlib is imported inside: it takes most of a second, which other commands need not wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np
from PIL import Image

from medsegdiff.base.files import replacing
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.resizing import shrunk
from medsegdiff.plots.palette import HEAT, MAX_STD, TRUTH_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN, _STD = "Mean probability", "Uncertainty (std)"
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


def overview(rows: Sequence[Row], path: Path, max_members: int = 3) -> None:
    """Write a figure with a row per image: image, ground truth, members' masks, mean probability, uncertainty.

    The outline of the ground truth is repeated over the mean probability. Columns that no row can fill are left out.

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
    columns = _columns(rows, max_members)
    heights = [row.image.shape[0] / row.image.shape[1] for row in rows]
    figure = Figure(
        figsize=(_PANEL_INCHES * len(columns) + 0.3, _PANEL_INCHES * sum(heights) + 0.55), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights)
    for panels, row in zip(axes, rows):
        for axis, (column, values_of) in zip(panels, columns.items()):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(color="0.6", linewidth=0.4)
            _draw_panel(axis, row, column, values_of(row))
        label = row.id if row.dice is None else f"{row.id}\nDice {row.dice:.3f}"
        panels[0].set_ylabel(label, fontsize=6)
    for axis, column in zip(axes[0], columns):
        axis.set_title(column, fontsize=7, pad=3)
    _add_scale(figure, axes, list(columns))
    with replacing(path) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or "png", dpi=300)


def _columns(rows: Sequence[Row], members: int) -> dict[str, Callable[[Row], np.ndarray | None]]:
    """What each column shows of a row, by its title; those that no row can fill are left out."""
    found: dict[str, Callable[[Row], np.ndarray | None]] = {
        "Image": lambda row: row.image,
        "Ground truth": lambda row: row.truth,
    }
    for i in range(members):
        found[f"Sample {i + 1}"] = lambda row, i=i: row.members[i] > THRESHOLD if i < len(row.members) else None
    found.update({_MEAN: lambda row: row.probability, _STD: lambda row: row.std})
    return {title: values_of for title, values_of in found.items() if any(values_of(row) is not None for row in rows)}


def _draw_panel(axis: Axes, row: Row, column: str, values: np.ndarray | None) -> None:
    if values is None:
        axis.set_axis_off()
        return
    colours, highest = (HEAT, MAX_STD) if column == _STD else ("gray", 1)
    axis.imshow(_shrink(values), cmap=colours, vmin=0, vmax=highest)
    if column == _MEAN and row.truth is not None and row.truth.any() and not row.truth.all():
        colour = np.array(TRUTH_COLOUR) / 255
        axis.contour(_shrink(row.truth), levels=[0.5], colors=[colour], linewidths=0.8)


def _add_scale(figure: Figure, axes: np.ndarray, columns: list[str]) -> None:
    """A colour bar under the lowest panel of the columns that need one; the panels stay aligned."""
    for name in (_MEAN, _STD):
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
    picture = Image.fromarray(values if values.ndim == 3 else values.astype(np.float32))
    return np.asarray(picture.resize(shrunk(values.shape[:2], _PANEL_PIXELS)[::-1], Image.Resampling.BILINEAR))
