"""What every two-dimensional dataset is made of: images with their masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import check_name
from medsegdiff.io.pictures import SUFFIXES, list_folder, list_pictures


@dataclass(frozen=True)
class Case:
    """One image, and its mask where there is one; `id` is unique within the dataset."""

    id: str
    image: Path
    mask: Optional[Path] = None


def check_pair(case: Case, image: np.ndarray, mask: np.ndarray) -> None:
    """Check that a case's decoded image and mask have the same size.

    Raises:
        InputError: their sizes in pixels differ.
    """
    if image.shape[:2] != mask.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape[:2]
        raise InputError(
            f"{case.mask}: the mask is {mask_width} x {mask_height} pixels, but its image {case.image} "
            f"is {width} x {height}; give it the mask of this image at full size"
        )


def from_files(paths: Iterable[Path]) -> list[Case]:
    """Images without masks from files and from folders of files; see `distinct` for their ids.

    Of a folder the pictures right in it are taken, or where it has none those in its subfolders. Pictures of a
    folder that differ in their suffix alone have it in their ids.

    Raises:
        InputError: a path is missing, a folder holds no image, or an image is given twice.
    """
    found: list[Path] = []
    for path in paths:
        files = [path]
        if path.is_dir():
            below = (folder for folder in list_folder(path) if folder.is_dir())
            files = list_pictures(path) or [file for folder in below for file in list_pictures(folder)]
            if not files:
                raise InputError(f"{path}: holds no image ({', '.join(sorted(SUFFIXES))})")
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        found += files
    alike = Counter(file.with_suffix("") for file in set(found))
    ids = (file.stem if alike[file.with_suffix("")] == 1 else file.name.replace(".", "_") for file in found)
    return distinct((str(file), Case(id, file)) for id, file in zip(ids, found))


def distinct(located: Iterable[tuple[str, Case]]) -> list[Case]:
    """The cases with distinct ids: those of the same name in several folders are named after their folders, too.

    Args:
        located: each with the words that say where it stands.

    Raises:
        InputError: two images of a folder share a name, or one's is not UTF-8.
    """
    rivals: dict[str, list[tuple[str, Case]]] = {}
    seen: dict[str, Case] = {}
    located = list(located)
    for where, case in located:
        check_name(case.image)
        rivals.setdefault(case.id, []).append((where, case))
    for where, case in located:
        named = _named(case, [other.image for _, other in rivals[case.id]])
        if named.id in seen:
            raise InputError(f"{where}: id {named.id} occurs twice (also {seen[named.id].image}); remove or rename one")
        seen[named.id] = named
    return list(seen.values())


def _named(case: Case, rivals: Sequence[Path]) -> Case:
    """`case` with as many of its folders' names before its id as tell it from `rivals`, its own image among them."""
    folders = [path.absolute().parent.parts for path in rivals]
    own = case.image.absolute().parent.parts
    count = 0
    while len(folders) > 1 and count < len(own):
        count += 1
        folders = [parts for parts in folders if parts[-count:] == own[-count:]]
    if len(folders) > 1 or not count:  # alone, or in one folder with another: then nothing tells them apart
        return case
    return replace(case, id="_".join([*own[-count:], case.id]))
