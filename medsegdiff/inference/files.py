"""From what was sampled of one image to its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.ensembles import ImageRow
from medsegdiff.io.labels import to_classes
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.png import write_png
from medsegdiff.io.predictions import Maps, write_prediction
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.regions import one_region_each
from medsegdiff.masks.resizing import resize_probability, shrunk
from medsegdiff.plots.overlay import overlay

_LONGEST = 2048  # pixels of an overlay's longer side: more than a screen shows, and a larger one takes seconds to write


@dataclass(frozen=True)
class Extras:
    """What is written besides the masks and their probabilities.

    Args:
        overlays: each mask drawn over its image, at its size up to 2048 pixels
        maps: standard deviation and entropy
        members: every member, and the conditioning network's own mask
        traces: ids of images whose first member's way from noise to mask is drawn
    """

    overlays: bool = True
    maps: bool = False
    members: bool = False
    traces: Sequence[str] = ()


def write_image(
    ledger: Ledger,
    result: ImageResult,
    size: tuple[int, int],
    picture: Callable[[tuple[int, int]], np.ndarray],
    extras: Extras,
    postprocess: bool = False,
    truth: Optional[Path] = None,
    trace: Optional[Callable[[Path], None]] = None,
    about: Optional[dict[str, Any]] = None,
    labels: Optional[Mapping[int, int]] = None,
) -> Path:
    """Write the files of one image, see `io.predictions`, together; returns the path of the mask, `ID.png`.

    Args:
        ledger: of what sampling wrote in the folder
        result: what was sampled
        size: the image's own (height, width)
        picture: gives the image at a size (H, W), uint8 (H, W, 3), for the overlay
        extras: what to write besides
        postprocess: keep one region of each class in the mask
        truth: file of the ground truth, for the overlay
        trace: writes further files of this image into the folder that it is given
        about: what to remember of them, see `Ledger.together`
        labels: the class of each value of the ground truth, where it has any, see `io.labels`

    Raises:
        InputError: as `io.predictions.write_prediction`, or the image cannot be read.
    """
    std, cal = result.std if extras.maps else None, result.cal if extras.members else None
    maps = Maps(result.probability, std, cal, result.members if extras.members else (), size)
    mask = one_region_each(maps.classes()) if postprocess else maps.classes()

    def draw(folder: Path) -> None:
        if extras.overlays:
            shown = shrunk(size, _LONGEST)
            true = None if truth is None else _ground_truth(truth, len(maps.probability) == 1, size, labels or {})
            deviation = np.stack([resize_probability(channel, shown) for channel in result.std]).max(axis=0)
            drawn = overlay(picture(shown), _small(mask > 0, shown), _small(true, shown), deviation)
            write_png(folder / f"{result.id}_overlay.png", drawn)
        if trace is not None:
            trace(folder)

    return write_prediction(ledger, result.id, maps, mask, draw, about)


def _small(mask: Optional[np.ndarray], size: tuple[int, int]) -> Optional[np.ndarray]:
    """A mask, bool (H, W), at `size`, as it is at the nearest pixel."""
    if mask is None or mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def row_of(slices: Sequence[ImageResult]) -> ImageRow:
    """What `images.csv` says of a picture, the only slice, or of a volume.

    Of a volume the fewest members of a slice, at least how many of them are empty in all slices, and the mean
    agreement over the slices in which not all are empty.
    """
    agreements = [one.agreement for one in slices if one.empty < one.count or len(slices) == 1]
    known = [agreement for agreement in agreements if agreement is not None]
    alike = 1.0 if not agreements and slices[0].agreement is not None else None
    members = min(one.count for one in slices)
    empty = min(members, *(one.empty for one in slices)) if len(slices) > 1 else slices[0].empty
    return ImageRow(members, empty, sum(known) / len(known) if known else alike)


@contextmanager
def if_readable() -> Iterator[None]:
    """Say that a ground truth, which is only drawn, cannot be read: no reason to segment nothing."""
    try:
        yield
    except InputError as error:
        print(f"note: the overlay is without ground truth: {error}")


def _ground_truth(path: Path, single: bool, size: tuple[int, ...], labels: Mapping[int, int]) -> Optional[np.ndarray]:
    """bool (H, W); None where it cannot be drawn."""
    with if_readable():
        if labels:
            drawn = to_classes(read_labels(path), labels) > 0
        else:
            drawn = read_mask(path) > THRESHOLD if single else read_labels(path) > 0
        return drawn if drawn.shape == size else None
    return None
