"""What every two-dimensional dataset is made of: images with their masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from medsegdiff.data.images import image_size
from medsegdiff.runtime.errors import InputError


@dataclass(frozen=True)
class Case:
    """One image, and its mask where there is one; `id` is unique within the dataset."""

    id: str
    image: Path
    mask: Optional[Path] = None


def check_pair(case: Case) -> None:
    """Check from the headers that the image and its mask can be read and have the same size.

    Raises:
        InputError: one is unreadable, or their sizes in pixels differ.
    """
    height, width = image_size(case.image)
    if case.mask is None:
        return
    mask_height, mask_width = image_size(case.mask)
    if (height, width) != (mask_height, mask_width):
        raise InputError(
            f"{case.mask}: the mask is {mask_width} x {mask_height} pixels, but its image {case.image} "
            f"is {width} x {height}; give it the mask of this image at full size"
        )
