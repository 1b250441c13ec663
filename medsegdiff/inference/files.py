"""From what was sampled of one image to its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
from PIL import Image

from medsegdiff.base.ownership import Ledger
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.ensembles import IMAGES, ImageRow, read_ensembles, write_ensembles
from medsegdiff.io.pictures import read_labels, read_mask
from medsegdiff.io.predictions import Maps, write_prediction
from medsegdiff.masks.decision import decide
from medsegdiff.masks.regions import one_region_each
from medsegdiff.plots.overlay import overlay


@dataclass(frozen=True)
class Extras:
    """What is written besides the masks, their probabilities and their uncertainty.

    Args:
        members: every member, and the conditioning network's own mask
        overlays: each mask drawn over its image
        traces: ids of images whose first member's way from noise to mask is drawn
    """

    members: bool = False
    overlays: bool = False
    traces: Sequence[str] = ()


def write_image(
    out: Union[Path, Ledger],
    result: ImageResult,
    size: tuple[int, int],
    picture: Callable[[], np.ndarray],
    extras: Extras,
    postprocess: bool = False,
    truth: Optional[Path] = None,
    draw: Callable[[Path], None] = lambda folder: None,
    about: Optional[dict[str, Any]] = None,
) -> None:
    """Write the files of one image, see `io.predictions`, together into the folder `out`.

    Args:
        out: the folder, or the ledger of what sampling wrote there
        result: what was sampled
        size: the image's own (height, width)
        picture: gives the image, uint8 (H, W, 3), for the overlay
        extras: what to write besides
        postprocess: keep one region of each class in the mask
        truth: file of the ground truth, for the overlay
        draw: writes further companions of the image into the folder that it is given
        about: what to remember of them

    Raises:
        InputError: as `io.predictions.write_prediction`, or the image or its ground truth cannot be read.
    """
    members = result.members if extras.members else ()
    maps = Maps(result.probability, result.std, result.cal if extras.members else None, members).resized(size)
    mask = one_region_each(decide(maps.probability)) if postprocess else None

    def draw_all(folder: Path) -> None:
        if extras.overlays:
            drawn = overlay(picture(), *_foreground(maps, mask, truth), maps.std.max(axis=0))
            Image.fromarray(drawn).save(folder / f"{result.id}_overlay.png")
        draw(folder)

    write_prediction(out, result.id, maps, mask, draw_all, about)


def add_row(ledger: Ledger, result: ImageResult) -> None:
    """Put what is known of an image's ensemble into the folder's table `images.csv`, beside the other images'.

    Raises:
        InputError: the table cannot be read or written, or is not sampling's own.
    """
    rows = read_ensembles(ledger.folder)
    with ledger.together(IMAGES) as stage:
        write_ensembles(stage, {**rows, result.id: ImageRow(result.count, result.empty, result.agreement)})


def _foreground(
    maps: Maps, mask: Optional[np.ndarray], truth: Optional[Path]
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """What is outlined: the mask (H, W), as a probability, and the ground truth; of several classes all together."""
    single = len(maps.probability) == 1
    if single and mask is None:
        outlined = maps.probability[0]
    else:
        outlined = ((decide(maps.probability) if mask is None else mask) > 0).astype(np.float32)
    if truth is None:
        return outlined, None
    return outlined, read_mask(truth) > 127 if single else read_labels(truth) > 0
