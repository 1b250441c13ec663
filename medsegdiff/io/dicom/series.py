"""A DICOM series, or a file of one or several frames, as a volume.

Slices are put in order, and their spacing and direction found, from where they say they lie in the patient; never from
names, instance numbers or the slice thickness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.dicom.files import frames_of, is_dicom, read_file
from medsegdiff.io.dicom.geometry import stack
from medsegdiff.io.dicom.pixels import pixels_of, values_of
from medsegdiff.io.pictures import list_folder
from medsegdiff.io.volumes import Geometry, Volume

_MOST_VALUES = 1 << 31


class Source(NamedTuple):
    """What `Geometry.header` is of a volume from DICOM: what it was read from."""

    datasets: tuple[Any, ...]
    """The files' headers, pydicom datasets without pixels: one a slice, or one with all frames."""
    order: tuple[int, ...]
    """For each slice the number of its file or frame, from 0 on."""


class Series(NamedTuple):
    """Files of one series."""

    description: str
    patient: str
    files: tuple[Path, ...]


def find_series(folder: Path) -> dict[str, Series]:
    """The image series right in a folder, by their UID; what is no DICOM image is passed over.

    Raises:
        InputError: the folder or a file cannot be read.
    """
    found: dict[str, Series] = {}
    for path in list_folder(folder):
        header = read_file(path, pixels=False) if path.is_file() and is_dicom(path) else None
        if header is not None and "Rows" in header and header.get("Modality") not in ("SEG", "RTDOSE"):
            uid = str(header.get("SeriesInstanceUID", ""))
            text = " ".join(str(header.get(name, "")) for name in ("Modality", "SeriesDescription")).strip()
            known = found.get(uid, Series(text, str(header.get("PatientID") or ""), ()))
            found[uid] = known._replace(files=(*known.files, path))
    return found


def read_dicom(path: Path, window: bool = False) -> Volume:
    """Read the series in a folder, or a file, as (X, Y, Z), or (X, Y, Z, 3) of colours in [0, 255].

    Values are rescaled as the files say: Hounsfield units of CT, int32 or float32; of MONOCHROME1, where low is white,
    they are turned round. Palettes and YBR become RGB.

    Args:
        path: the folder, or the file.
        window: give grey values as the first window of the file shows them, float32 from 0 (black) to 1 (white).

    Raises:
        InputError: a file is missing, damaged, compressed in a manner that is not known, or no image; a folder holds no
            series, or several; slices lie at one place, are missing, or unevenly spaced, or are of several sizes or
            directions; or they do not say where they lie.
    """
    files: Sequence[Path] = [path]
    if path.is_dir():
        series = find_series(path)
        if not series:
            raise InputError(f"{path}: holds no DICOM image; give the folder of a series")
        if len(series) > 1:
            named = "; ".join(f"{len(one.files)} files of {one.description}" for one in series.values())
            raise InputError(f"{path}: holds {len(series)} series ({named}); keep each in a folder of its own")
        files = next(iter(series.values())).files
    read = [frames_of(file) for file in files]
    frames = [frame for own in read for frame in own]
    order, affine = stack(frames)
    wanted = sum(frame.size for frame in frames)
    if wanted > _MOST_VALUES:
        raise InputError(f"{path}: {wanted:,} values, and more than {_MOST_VALUES:,} are not read; give a part of it")
    slices: list[np.ndarray] = []
    for own in read:
        pixels = pixels_of(own[0].dataset, own[0].path, len(own))
        slices += [values_of(stored, frame, window) for stored, frame in zip(pixels, own)]
        del own[0].dataset.PixelData
    values = np.stack([slices[number] for number in order]).swapaxes(0, 2)
    datasets = tuple(own[0].dataset for own in read)
    source = Source(datasets, order)
    if len(datasets) == len(frames):
        source = Source(tuple(datasets[number] for number in order), tuple(range(len(order))))
    width, height, depth = values.shape[:3]
    return Volume(values, Geometry((width, height, depth), affine, source))
