"""The ground truth: finding its files, reading them class by class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.masks import find_masks, read_labels, read_mask
from medsegdiff.io.pictures import list_pictures


def truth_from_folder(folder: Path) -> dict[str, Path]:
    """Map ids to the masks in a folder, sorted; see `masks.find_masks`.

    Raises:
        InputError: there is no such folder, no picture in it, or two masks for an id.
    """
    pictures = list_pictures(folder)
    if not pictures:
        raise InputError(f"{folder}: holds no picture; give the folder with ID_Segmentation.png or ID.png masks")
    return find_masks(pictures)


@dataclass(frozen=True)
class Truth:
    """The ground truth of one image."""

    path: Path
    num_classes: int
    values: np.ndarray  # (H, W): float32 shares of foreground where there are two classes, else uint8 class indices
    spacing: Optional[tuple[float, ...]] = None
    """Millimetres from pixel to pixel along each axis, where the file says so."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape

    def soft(self, label: int) -> np.ndarray:
        """How much of each pixel belongs to the foreground class `label`, float32 (H, W) in [0, 1]."""
        return self.values if self.num_classes == 2 else self.mask(label).astype(np.float32)

    def mask(self, label: int) -> np.ndarray:
        """The pixels of the foreground class `label`, bool (H, W)."""
        return self.values > 0.5 if self.num_classes == 2 else self.values == label


def read_truth(path: Path, num_classes: int = 2) -> Truth:
    """Read a mask, see `masks.read_mask`; of more than two classes, with class indices.

    Raises:
        InputError: the file cannot be read or its values are not understood.
    """
    read = read_mask(path) if num_classes == 2 else read_classes(path, num_classes)
    return Truth(path, num_classes, read)


def read_classes(path: Path, num_classes: int) -> np.ndarray:
    """Read class indices, uint8 (H, W) from 0 to `num_classes` - 1.

    Raises:
        InputError: the file cannot be read, is in colour or holds another value.
    """
    labels = read_labels(path)
    highest = int(labels.max())
    if highest >= num_classes:
        raise InputError(
            f"{path}: holds class {highest}, but with `num_classes` {num_classes} they are 0 to {num_classes - 1}; "
            "correct the file or the option"
        )
    return labels
