"""The files of a case, read: a picture is a volume of one slice, without a place in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note
from medsegdiff.data.cases import Case
from medsegdiff.data.scaling import EIGHT_BITS, bounds_of, scale
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.labels import labelled
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_grey, read_image
from medsegdiff.io.volumes import Geometry, is_volume, read_label_volume, read_volume, to_slices

_DARK = 16  # of the window: as many times 12 bits are in 16


class Source(NamedTuple):
    """The images of a case, as its files have them."""

    values: np.ndarray
    """(D, H, W, C): slices as a viewer shows them; D = 1 of a picture."""
    geometry: Optional[Geometry] = None
    """Of a volume."""


def read_source(case: Case, spec: DataSpec) -> Source:
    """Read a case's images.

    Raises:
        InputError: a file cannot be read, the files differ in size or place, or have not `spec.channels` channels.
    """
    if not is_volume(case.image):
        return Source(_picture(case, spec)[None])
    first = read_volume(case.image)
    layers = []
    for path in case.channels:
        values, geometry = first if path == case.image else read_volume(path)
        if differs := first.geometry.differs(geometry):
            raise InputError(f"{path}: has another grid than {case.image}: {differs}; resample it to that one")
        layers.append(values if values.ndim == 4 else values[..., None])
    _check_channels(case, sum(layer.shape[-1] for layer in layers), spec)
    for path, layer in zip(case.channels, layers):
        _check_values(path, layer, spec.scaling)
    stacked = layers[0] if len(layers) == 1 else np.concatenate(layers, axis=-1)
    return Source(to_slices(stacked, first.geometry, spec.axis), first.geometry)


def read_classes(case: Case, spec: DataSpec, num_classes: int, source: Source) -> np.ndarray:
    """Read a case's mask as class indices, uint8 (D, H, W), for the images `source`.

    Raises:
        InputError: it cannot be read, differs from the images in size or place, or holds a class too many.
        ValueError: the case has none.
    """
    path = case.mask
    if path is None:
        raise ValueError(f"{case.id} has no mask")
    if source.geometry is not None:
        values, geometry = read_label_volume(path, case.image)
        if differs := source.geometry.differs(geometry):
            raise InputError(
                f"{path}: has another grid than its image {case.image}: {differs}; give the mask of this image"
            )
        values = to_slices(values, geometry, spec.axis)
    else:
        values = read_labels(path) if spec.labels or num_classes > 2 else read_mask(path) > 0.5
        (height, width), (mask_height, mask_width) = source.values.shape[1:3], values.shape
        if (height, width) != (mask_height, mask_width):
            raise InputError(
                f"{path}: the mask is {mask_width} x {mask_height} pixels, but its image {case.image} "
                f"is {width} x {height}; give it the mask of this image at full size"
            )
        values = values[None]
    if spec.labels:
        return labelled(values, spec.labels, path)
    highest = int(values.max())
    if highest >= num_classes:
        raise InputError(
            f"{path}: holds class {highest}, but with `num_classes` {num_classes} they are 0 to "
            f"{num_classes - 1}; give `num_classes` {highest + 1}, `labels` if values are left out, or correct the mask"
        )
    return values.astype(np.uint8)


def shown(source: Source, spec: DataSpec) -> np.ndarray:
    """Slices as a person sees them, uint8 (D, H, W, 3): colours, or the first channel, scaled, in grey."""
    if spec.colour and source.values.shape[-1] == 3 and spec.scaling == EIGHT_BITS:
        return source.values.astype(np.uint8, copy=False)
    grey = np.rint(255 * scale(source.values[..., :1], spec.scaling)).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


def _picture(case: Case, spec: DataSpec) -> np.ndarray:
    """(H, W, C)."""
    if len(case.channels) == 1 and spec.channels == 3:
        return read_image(case.image)
    layers = [read_grey(path, spec.scaling == EIGHT_BITS) for path in case.channels]
    for path, layer in zip(case.channels, layers):
        if layer.shape != layers[0].shape:
            raise InputError(f"{path}: is of another size than {case.image}; channels have one size")
        _check_range(path, layer, spec.scaling)
    _check_channels(case, len(layers), spec)
    return np.stack(layers, axis=-1)


def _check_range(path: Path, layer: np.ndarray, scaling: str) -> None:
    """Refuse, or note, a picture whose values are not those of the window by which it is scaled."""
    bounds, top = bounds_of(scaling), layer.max()
    if bounds is None:
        return
    low, high = bounds
    kind = "8 bits" if layer.dtype == np.uint8 else "fractions up to 1" if layer.dtype.kind == "f" and top <= 1 else ""
    if kind and high > 255:
        where = f"where values from {low:g} to {high:g} are read"
        raise InputError(f"{path}: of {kind}, {where}; give an image like those of training")
    if top > high:
        note(path, f"holds values up to {top:g}; those above {high:g} are cut off")
    elif _DARK * top <= high:
        note(path, f"holds values up to {top:g} alone, where {low:g} to {high:g} are expected: it is dark")


def _check_values(path: Path, layer: np.ndarray, scaling: str) -> None:
    """Refuse, or note, a volume whose values are no numbers, or not those of the window by which it is scaled."""
    bounds = bounds_of(scaling)
    if bounds and bounds[0] < 0 <= layer.min():
        low, high = bounds
        note(path, f"holds no value below 0, where {low:g} to {high:g} are expected: CT numbers without their offset?")
    wrong = layer.size - np.count_nonzero(np.isfinite(layer)) if layer.dtype.kind == "f" else 0
    if wrong == layer.size:
        raise InputError(f"{path}: none of its values is a finite number; export it again")
    if wrong:
        note(path, "holds values that are not finite; they are read as the lowest or highest value")


def _check_channels(case: Case, found: int, spec: DataSpec) -> None:
    if found != spec.channels:
        raise InputError(
            f"{case.image}: has {found} channels, and {spec.channels} are read; give an image like those of training"
        )
