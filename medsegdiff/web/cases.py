"""Single images of a report: the picture, outlines of masks as SVG paths, the uncertainty; small enough to embed."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import read_probability
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.plots.palette import HEAT, MAX_STD
from medsegdiff.web.runs import Run

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
    size: tuple[int, int]
    """Width and height of what is embedded."""
    image: str
    truth: str
    panels: list[Panel]
    notes: list[str]


def choose(scores: dict[str, dict[str, float]], each: int = 2) -> list[tuple[str, str]]:
    """(kind, id) of the images with the best, middle and worst Dice, up to `each` of a kind and none twice."""
    ranked = sorted(scores, key=lambda id: -scores[id]["dice"])
    middle = max(0, len(ranked) // 2 - each // 2)
    places = {"best": range(each), "median": range(middle, middle + each), "worst": range(-each, 0)}
    chosen: dict[str, str] = {}
    for kind in ("best", "worst", "median"):
        for place in places[kind]:
            if -len(ranked) <= place < len(ranked):
                chosen.setdefault(ranked[place], kind)
    return [(kind, id) for kind in places for id in ranked if chosen.get(id) == kind]


def show(kind: str, id: str, runs: list[Run]) -> Shown:
    """Read what is known of the image `id` in `runs`; the picture and the ground truth from the first that has them."""
    notes: list[str] = []
    image = truth = None
    for run in runs:
        paths = run.sampled.get("image_files", {}).get(id), run.summary.get("ground truth", {}).get(id)
        classes = run.summary.get("num_classes", 2)
        image = image if image is not None or not paths[0] else _tried(read_image, Path(paths[0]), notes)
        if truth is None and paths[1]:
            truth = _tried(_foreground(classes), Path(paths[1]), notes)
    if image is None and not notes:
        notes.append("its picture is not shown: the predictions do not say where it is; sample again")
    panels, size = [], None if image is None else shrunk(image.shape)
    for index, run in enumerate(runs):
        folder = run.predictions
        if folder is None or not (folder / f"{id}.png").is_file():
            continue
        mask = _tried(_foreground(run.summary.get("num_classes", 2)), folder / f"{id}.png", notes)
        if mask is None:
            continue
        size = size or shrunk(mask.shape)
        deviation = [read_probability(path) for path in sorted(folder.glob(f"{_escaped(id)}_std*.png"))]
        heat = heat_of(np.max(deviation, axis=0), size) if deviation else ""
        dice = run.scores.get(id, {}).get("dice")
        panels.append(Panel(index, dice, outline(mask, size), heat))
    size = size or (_LONGEST, _LONGEST)
    picture = "" if image is None else data_uri(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), "JPEG")
    true = "" if truth is None else outline(truth, size)
    return Shown(id, kind, size, picture, true, panels, list(dict.fromkeys(notes)))


def _escaped(id: str) -> str:
    import glob

    return glob.escape(id)


def _foreground(classes: int):  # noqa: ANN202
    return read_mask if classes == 2 else lambda path: (read_labels(path) > 0).astype(np.float32)


def _tried(read, path: Path, notes: list[str]) -> Optional[np.ndarray]:  # noqa: ANN001
    try:
        return read(path)
    except InputError as error:
        notes.append(str(error))
        return None


def shrunk(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of what is shown of an array (H, W, ...)."""
    height, width = shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


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
