"""What an ablation's trainings look like: their losses, and masks of the same images side by side."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.io.pictures import read_image
from medsegdiff.plots.contact_sheet import Tile, contact_sheet

_LOSS = "loss_diff"  # of the mask: what all configurations have in common
_SHOWN = 6  # images


def draw_curves(path: Path, studied: Mapping[str, Path]) -> None:
    """The loss of the mask over the steps, by configuration; `studied`: folders with `run/log.csv`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, folder in studied.items():
        with (folder / "run" / "log.csv").open(newline="", encoding="utf-8") as file:
            rows = [(int(row["step"]), float(row[_LOSS])) for row in csv.DictReader(file)]
        axes.semilogy(*zip(*rows), label=name)
    axes.set(xlabel="steps", ylabel="mean squared error of the mask")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def draw_masks(path: Path, studied: Mapping[str, Path]) -> None:
    """Overlays, a line for each configuration; `studied`: folders with `masks/ID_overlay.png`."""
    shown = sorted(next(iter(studied.values())).glob("masks/*_overlay.png"))
    places = np.unique(np.linspace(0, len(shown) - 1, min(_SHOWN, len(shown))).round().astype(int))
    tiles = [
        Tile(read_image(folder / "masks" / shown[place].name), None, f"{name}: {shown[place].stem[:-8]}")
        for name, folder in studied.items()
        for place in places
    ]
    Image.fromarray(contact_sheet(tiles, len(places))).save(path, quality=85)
