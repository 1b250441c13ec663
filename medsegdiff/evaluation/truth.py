"""The ground truth: finding its files, reading them class by class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.pictures import read_labels, read_mask


def truth_from_folder(folder: Path) -> dict[str, Path]:
    """Map ids to the masks in a folder, sorted: `ID_Segmentation.png` in any case, else plain `ID.png`.

    Where at least one name ends in `_Segmentation`, the other pictures are not taken for masks.

    Raises:
        InputError: there is no such folder, or no PNG in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder that holds the ground truth masks")
    pictures = {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    if not pictures:
        raise InputError(f"{folder}: holds no PNG; give the folder with ID_Segmentation.png or ID.png masks")
    ending = re.compile(r"_segmentation$", re.IGNORECASE)
    named = {ending.sub("", stem): path for stem, path in pictures.items() if ending.search(stem)}
    return named or pictures


@dataclass(frozen=True)
class Truth:
    """The ground truth of one image."""

    path: Path
    num_classes: int
    values: np.ndarray  # (H, W): float32 grey levels in [0, 1] where there are two classes, else uint8 class indices

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
    """Read a mask with the grey levels 0 and 255, or 0 and 1; of more than two classes, with class indices.

    Raises:
        InputError: the file cannot be read or holds other values.
    """
    if num_classes > 2:
        return Truth(path, num_classes, read_classes(path, num_classes))
    grey = read_mask(path)
    top = int(grey.max())
    if 1 < top <= 127:
        raise InputError(
            f"{path}: its highest grey level is {top}; write masks with 0 and 255, or 0 and 1, "
            "or give --num-classes where they hold class indices"
        )
    return Truth(path, num_classes, grey.astype(np.float32) / (1 if top == 1 else 255))


def read_classes(path: Path, num_classes: int) -> np.ndarray:
    """Read class indices, uint8 (H, W) from 0 to `num_classes` - 1.

    Raises:
        InputError: the file cannot be read, is in colour or holds another value.
    """
    labels = read_labels(path)
    highest = int(labels.max())
    if highest >= num_classes:
        raise InputError(
            f"{path}: holds class {highest}, but with --num-classes {num_classes} they are 0 to {num_classes - 1}; "
            "correct the file or the option"
        )
    return labels
