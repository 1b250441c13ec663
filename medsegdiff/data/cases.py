"""What every two-dimensional dataset is made of: images with their masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from medsegdiff.base.errors import InputError
from medsegdiff.io.pictures import image_size


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


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})


def from_files(paths: Iterable[Path]) -> list[Case]:
    """Images without masks from files and from folders of files; an id is a file's name without suffix.

    Raises:
        InputError: a path is missing, a folder holds no image, or two images share a name.
    """
    cases: dict[str, Case] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        files = [path]
        if path.is_dir():
            names = sorted(p for p in path.iterdir() if not p.name.startswith("."))
            files = [p for p in names if p.suffix.lower() in IMAGE_SUFFIXES]
            if not files:
                raise InputError(f"{path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for file in files:
            if file.stem in cases:
                raise InputError(f"{file}: has the same name as {cases[file.stem].image}; rename one of them")
            cases[file.stem] = Case(file.stem, file)
    return list(cases.values())
