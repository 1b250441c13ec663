"""From what was sampled of a volume's slices to its files, on the volume's own grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.ownership import Ledger
from medsegdiff.data.cases import Case
from medsegdiff.data.prepared import Prepared
from medsegdiff.inference.files import Extras, if_readable
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.labels import to_classes
from medsegdiff.io.png import write_png
from medsegdiff.io.predictions import Grid, Maps, write_prediction
from medsegdiff.io.volumes import Geometry, from_slices, geometry_of, read_label_volume, to_slices
from medsegdiff.masks.decision import decide
from medsegdiff.masks.regions import one_region_each
from medsegdiff.plots.overlay import overlay


def write_case(
    ledger: Ledger,
    case: Case,
    dataset: Prepared,
    slices: Sequence[ImageResult],
    extras: Extras,
    postprocess: bool,
    about: dict[str, Any],
) -> Path:
    """Write the files of a volume, see `io.predictions`, together; returns the path of the mask, `ID.nii.gz`.

    Slices that are missing are background. The overlay is of the slice with the largest mask. With `postprocess` one
    region of each class is kept in the mask. `about` is what to remember of the files, see `Ledger.together`.

    Raises:
        InputError: as `io.predictions.write_prediction`, or the volume cannot be read.
    """
    geometry, spec = geometry_of(case.image), dataset.form.spec
    at = {dataset.slices[result.index][1]: result for result in slices}
    size, depth = dataset.original_sizes[slices[0].index], dataset.depth(dataset.slices[slices[0].index][0])
    with_std = extras.maps or extras.overlays
    count = min(len(result.members) for result in slices) if extras.members else 0

    def maps_of(result: ImageResult) -> Maps:
        std, cal = result.std if with_std else None, result.cal if extras.members else None
        return Maps(result.probability, std, cal, list(result.members[:count])).resized(size)

    empty = np.zeros((len(slices[0].probability), *size), np.float32)
    found = {number: maps_of(result) for number, result in at.items()}

    def whole(layer: Any) -> np.ndarray:
        """One kind of map of all slices, (M, X, Y, Z)."""
        stacked = [layer(found[number]) if number in found else empty for number in range(depth)]
        return from_slices(np.stack(stacked), geometry, spec.axis, channels=True)

    maps = Maps(
        whole(lambda one: one.probability),
        whole(lambda one: one.std) if with_std else None,
        whole(lambda one: one.cal) if extras.members else None,
        [whole(lambda one, k=k: one.members[k]) for k in range(count)],
    )
    mask = one_region_each(decide(maps.probability)) if postprocess else decide(maps.probability)

    def draw(folder: Path) -> None:
        if extras.overlays:
            seen = to_slices(mask, geometry, spec.axis)
            number = max(at, key=lambda number: np.count_nonzero(seen[number]))
            image = _picture(dataset.image(at[number].index), size)
            truth = _truth(case, geometry, spec.axis, number, spec.labels)
            outlined = (seen[number] > 0).astype(np.float32)
            drawn = overlay(image, outlined, truth, found[number].std.max(axis=0))
            write_png(folder / f"{case.id}_overlay.png", drawn)

    written = maps if extras.maps else dataclasses.replace(maps, std=None)
    return write_prediction(ledger, case.id, written, mask, draw, about, Grid(geometry, spec.labels))


def _picture(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The first channel of a slice (C, S, S) in [0, 1] as uint8 (H, W, 3)."""
    grey = Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(grey.convert("RGB"))


def _truth(case: Case, geometry: Geometry, axis: str, number: int, labels: Mapping[int, int]) -> Optional[np.ndarray]:
    """bool (H, W) of one slice; None where there is none on this grid, or none that can be read."""
    if case.mask is None:
        return None
    with if_readable():
        values, own = read_label_volume(case.mask, case.image)
        classes = to_classes(values, labels) if labels else values
        return None if geometry.differs(own) else to_slices(classes, own, axis)[number] > 0
    return None
