"""The ground truth: finding its files, reading them class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.folders import list_folder
from medsegdiff.io.labels import labelled
from medsegdiff.io.masks import find_masks, read_labels, read_mask
from medsegdiff.io.pictures import is_picture
from medsegdiff.io.volumes import Geometry, is_volume, read_label_volume


def truth_from_folder(folder: Path) -> dict[str, Path]:
    """Map ids to the masks in a folder, pictures or volumes, sorted; see `masks.find_masks`.

    Raises:
        InputError: there is no such folder, no picture or volume in it, or two masks for an id.
    """
    files = [path for path in list_folder(folder) if is_picture(path) or is_volume(path)]
    if not files:
        raise InputError(f"{folder}: holds no picture; give the folder with ID_Segmentation.png or ID.png masks")
    return find_masks(files)


@dataclass(frozen=True)
class Truth:
    """The ground truth of one image."""

    path: Path
    num_classes: int
    values: np.ndarray
    """(H, W), or (X, Y, Z) of a volume: of two classes float32 shares of foreground, else uint8 class indices."""
    geometry: Optional[Geometry] = None
    """Of a volume."""
    labels: Mapping[int, int] = field(default_factory=dict)
    """What classes the values of volumes mean."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width, or sides of a volume."""
        return self.values.shape

    @property
    def spacing(self) -> Optional[tuple[float, ...]]:
        """Millimetres from pixel to pixel along each axis, where the file says so."""
        return self.geometry and self.geometry.spacing

    def soft(self, label: int) -> np.ndarray:
        """How much of each pixel belongs to the foreground class `label`, float32 (H, W) in [0, 1]."""
        return self.values if self.num_classes == 2 else self.mask(label).astype(np.float32)

    def mask(self, label: int) -> np.ndarray:
        """The pixels of the foreground class `label`, bool (H, W)."""
        return self.values > 0.5 if self.num_classes == 2 else self.values == label


def read_truth(
    path: Path, num_classes: int = 2, labels: Optional[Mapping[int, int]] = None, prediction: Optional[Path] = None
) -> Truth:
    """Read a mask, see `masks.read_mask`; of more than two classes, with class indices, or values with `labels`.

    A DICOM segmentation, or a picture of a volume of one slice, is read on the grid of its `prediction`, which is its
    image's.

    Raises:
        InputError: the file cannot be read or its values are not understood.
    """
    labels, geometry = labels or {}, None
    if is_volume(path) or (prediction is not None and is_volume(prediction)):
        values, geometry = read_label_volume(path, prediction)
    elif labels or num_classes > 2:
        values = read_labels(path)
    else:
        return Truth(path, num_classes, read_mask(path))
    found = _classes(values, path, num_classes, labels)
    return Truth(path, num_classes, (found == 1).astype(np.float32) if num_classes == 2 else found, geometry, labels)


def read_volume_classes(path: Path, truth: Truth) -> np.ndarray:
    """Read a predicted volume as class indices, on the grid of the ground truth.

    Raises:
        InputError: it cannot be read, or is on another grid.
    """
    values, geometry = read_label_volume(path)
    check_grid(path, geometry, truth)
    return _classes(values, path, truth.num_classes, truth.labels)


def check_grid(path: Path, geometry: Geometry, truth: Truth) -> None:
    """Check that a predicted volume is on the grid of the ground truth.

    Raises:
        InputError: it is not.
    """
    differs = truth.geometry.differs(geometry, 0.1) if truth.geometry else "that is a picture"
    if differs:
        remedy = "resample it to that, or sample again"
        raise InputError(f"{path}: has another grid than its ground truth {truth.path}: {differs}; {remedy}")


def read_classes(path: Path, num_classes: int) -> np.ndarray:
    """Read class indices, uint8 (H, W) from 0 to `num_classes` - 1.

    Raises:
        InputError: the file cannot be read, is in colour or holds another value.
    """
    return _classes(read_labels(path), path, num_classes, {})


def _classes(values: np.ndarray, path: Path, num_classes: int, labels: Mapping[int, int]) -> np.ndarray:
    if labels:
        return labelled(values, labels, path)
    lowest, highest = int(values.min()), int(values.max())
    if highest >= num_classes or lowest < 0:
        worst = lowest if lowest < 0 else highest
        raise InputError(
            f"{path}: holds class {worst}, but with `num_classes` {num_classes} they are 0 to {num_classes - 1}; "
            "correct the file or the option"
        )
    return values.astype(np.uint8)
