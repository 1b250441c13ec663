"""DICOM files and the frames in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import reading


class Frame(NamedTuple):
    """An image of a file."""

    path: Path
    dataset: Any
    size: int
    """How many values it has."""
    groups: tuple[Any, ...]
    """The frame's functional groups, where the file has them."""

    def get(self, sequence: str, keyword: str) -> Any:
        """An attribute, of the frame, of all frames, or of the file."""
        for group in self.groups:
            if group.get(sequence) and group[sequence][0].get(keyword) is not None:
                return group[sequence][0].get(keyword)
        return self.dataset.get(keyword)

    def numbers(self, sequence: str, keyword: str, count: int) -> Optional[np.ndarray]:
        """An attribute of `count` finite numbers, float64; None where there is none such."""
        try:
            values = np.array(self.get(sequence, keyword), dtype=np.float64).reshape(count)
        except (TypeError, ValueError):
            return None
        return values if np.isfinite(values).all() else None


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with reading(path) as file:
        return file.read(132)[128:] == b"DICM"


def read_file(path: Path, pixels: bool = True) -> Any:
    """The file as a pydicom dataset."""
    import pydicom

    with reading(path) as file, quiet():
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=not pixels)
            for _ in dataset.iterall():  # else what is damaged would be found when it is asked for
                pass
            return dataset
        except Exception as error:  # on damaged files it raises nearly anything
            line = " ".join(str(error).split())
            raise InputError(f"{path}: damaged or no DICOM file ({line[:200]}); download or export it again") from None


def frames_of(path: Path, of_segments: bool = False, pixels: bool = True) -> list[Frame]:
    """The frames of an image, or of a segmentation; on request without pixels.

    Raises:
        InputError: the file is missing, damaged or of another kind, or its frames do not say where they lie.
    """
    dataset = read_file(path, pixels)
    if not all(name in dataset for name in ("Rows", "Columns", "PhotometricInterpretation")):
        raise InputError(f"{path}: a DICOM file without an image ({dataset.get('Modality')}); give the images' files")
    if pixels and "PixelData" not in dataset:
        raise InputError(f"{path}: a header whose pixels are cut off or left out; download or export it again")
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
        each = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = tuple(dataset.get("SharedFunctionalGroupsSequence") or ())[:1]
        size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged header ({error}); download or export it again") from None
    if (dataset.get("Modality") == "SEG") != of_segments:
        wanted = "a segmentation" if of_segments else "an image"
        raise InputError(f"{path}: {dataset.get('Modality')}, where {wanted} was expected; give another file")
    if count > 1 and len(each) != count:
        raise InputError(f"{path}: {count} frames that do not say where they lie, as of a film; export one alone")
    return [Frame(path, dataset, size, (*each[number : number + 1], *shared)) for number in range(count)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back pydicom's warnings: what matters is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
