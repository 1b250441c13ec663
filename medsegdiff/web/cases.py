"""Single images of a report: the picture, outlines of masks as SVG paths, the uncertainty; small enough to embed."""

from __future__ import annotations

import base64
import glob
import io
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.io.predictions import NIFTI, PNG
from medsegdiff.masks.resizing import resize_probability, shrunk
from medsegdiff.plots.palette import HEAT, MAX_STD
from medsegdiff.web.runs import Run
from medsegdiff.web.slices import read_deviation, read_foreground, read_picture

_LONGEST = 360  # pixels of a picture's longer side


class Panel(NamedTuple):
    """What one run says of an image."""

    run: int
    dice: Optional[float]
    outline: str
    """An SVG path over `Shown.size`."""
    heat: str
    """The uncertainty as a data URI; empty where there is none."""


class Shown(NamedTuple):
    """An image of the report; what could not be read is empty, and `notes` says so."""

    id: str
    kind: str
    place: str
    """Which slice of a volume; empty of a picture."""
    size: tuple[int, int]
    """Width and height of what is embedded."""
    image: str
    truth: str
    panels: list[Panel]
    notes: list[str]


def choose(scores: dict[str, dict[str, float]], each: int = 2) -> list[tuple[str, str]]:
    """(kind, id) of the images with the best, middle and worst Dice, up to `each` of a kind and none twice."""
    # Of images that are empty in both there may be none.
    ranked = sorted((id for id in scores if "dice" in scores[id]), key=lambda id: -scores[id]["dice"])
    middle = max(0, len(ranked) // 2 - each // 2)
    places = {"best": range(each), "median": range(middle, middle + each), "worst": range(-each, 0)}
    chosen: dict[str, str] = {}
    for kind in ("best", "worst", "median"):
        for place in places[kind]:
            if -len(ranked) <= place < len(ranked):
                chosen.setdefault(ranked[place], kind)
    return [(kind, id) for kind in places for id in ranked if chosen.get(id) == kind]


def show(kind: str, id: str, runs: list[Run]) -> Shown:
    """Read what is known of the image `id` in `runs`; the picture and the ground truth from the first that has them.

    Of a volume that slice which has the most of the ground truth, or without one of the first mask.
    """
    notes: list[str] = []
    image = truth = None
    masks: dict[int, np.ndarray] = {}
    axis = next((run.config["axis"] for run in runs if "axis" in run.config), "axial")  # one for all that is compared
    for index, run in enumerate(runs):
        picture, true = run.sampled.get("image_files", {}).get(id), run.summary.get("ground truth", {}).get(id)
        mask = _mask(run, id)
        if image is None and picture:
            image = _tried(notes, read_picture, Path(picture), run, axis)
        if truth is None and true:
            truth = _tried(notes, read_foreground, Path(true), run, axis, mask or Path(true))
        found = None if mask is None else _tried(notes, read_foreground, mask, run, axis)
        if found is not None:
            masks[index] = found
    if image is None and not notes:
        notes.append("its picture is not shown: the predictions do not say where it is; sample again")
    layers = [layer for layer in (truth, *masks.values(), image) if layer is not None]
    if not layers:
        return Shown(id, kind, "", (_LONGEST, _LONGEST), "", "", [], list(dict.fromkeys(notes)))
    count, at = len(layers[0]), int(np.argmax([layer.sum() for layer in layers[0]]))
    place, size = f"slice {at + 1} of {count}" if count > 1 else "", size_shown(layers[-1].shape[1:])

    def slice_of(layer: np.ndarray) -> np.ndarray:
        return layer[min(at, len(layer) - 1)]

    panels = []
    for index, found in masks.items():
        run = runs[index]
        deviations = _deviations(run, id)
        std = _tried(notes, read_deviation, deviations, axis) if deviations else None
        heat = "" if std is None else heat_of(slice_of(std), size)
        panels.append(Panel(index, run.scores.get(id, {}).get("dice"), outline(slice_of(found), size), heat))
    shown = ""
    if image is not None:
        shown = data_uri(Image.fromarray(slice_of(image)).resize(size, Image.Resampling.LANCZOS), "JPEG")
    drawn = "" if truth is None else outline(slice_of(truth), size)
    return Shown(id, kind, place, size, shown, drawn, panels, list(dict.fromkeys(notes)))


def _mask(run: Run, id: str) -> Optional[Path]:
    paths = [run.predictions / f"{id}{end}" for end in (PNG, NIFTI)] if run.predictions else []
    return next((path for path in paths if path.is_file()), None)


def _deviations(run: Run, id: str) -> list[Path]:
    mask = _mask(run, id)
    return sorted(mask.parent.glob(f"{glob.escape(id)}_std*{mask.name[len(id) :]}")) if mask else []


def _tried(notes: list[str], read: Callable[..., np.ndarray], *given: Any) -> Optional[np.ndarray]:
    try:
        return read(*given)
    except InputError as error:
        notes.append(str(error))
        return None


def size_shown(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of what is shown of an array (H, W, ...)."""
    height, width = shrunk(shape[:2], _LONGEST)
    return width, height


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """Where float (H, W) crosses one half, as a path over `size` = (width, height)."""
    from contourpy import contour_generator

    # A rim of background closes what the picture's edge cuts.
    values = np.pad(resize_probability(mask.astype(np.float32), size[::-1]), 1)
    rings = contour_generator(z=values).lines(0.5)
    return "".join("M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in ring) + "Z" for ring in rings)


def heat_of(std: np.ndarray, size: tuple[int, int]) -> str:
    """Standard deviations (H, W) as a picture of `size` = (width, height), a data URI."""
    from matplotlib import colormaps

    scaled = np.clip(resize_probability(std, size[::-1]) / MAX_STD, 0, 1)
    return data_uri(Image.fromarray(colormaps[HEAT](scaled, bytes=True)[..., :3]), "JPEG")


def data_uri(picture: Image.Image, kind: str) -> str:
    """A picture as it is embedded in a page; `kind` is "JPEG" or "PNG"."""
    file = io.BytesIO()
    picture.save(file, format=kind, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
