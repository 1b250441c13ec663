"""A DICOM series, or a file of one or several frames, as a volume.

Slices are put in order, and their spacing and direction found, from where they say they lie in the patient; never from
names, instance numbers or the slice thickness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.dicom.files import Frame, frames_of, is_dicom, read_file
from medsegdiff.io.dicom.geometry import stack
from medsegdiff.io.dicom.pixels import pixels_of, values_of
from medsegdiff.io.folders import list_folder
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


class Contents(NamedTuple):
    """The DICOM files right in a folder."""

    series: dict[str, Series]
    """Of images, by their UID."""
    segmentations: dict[str, Path]
    """By the UID of the series that they refer to."""


def find_series(folder: Path) -> Contents:
    """The DICOM files right in a folder; what is neither an image nor a segmentation is skipped.

    Raises:
        InputError: the folder or a file cannot be read, or two segmentations refer to one series.
    """
    found = Contents({}, {})
    for path in list_folder(folder):
        header = read_file(path, pixels=False) if path.is_file() and is_dicom(path) else None
        if header is None or "Rows" not in header or header.get("Modality") == "RTDOSE":
            continue
        if header.get("Modality") == "SEG":
            referred = str((header.get("ReferencedSeriesSequence") or [{}])[0].get("SeriesInstanceUID", ""))
            if referred in found.segmentations:
                raise InputError(f"{path}: a second segmentation of one series; keep one in the dataset")
            found.segmentations[referred] = path
        else:
            uid = str(header.get("SeriesInstanceUID", ""))
            text = " ".join(str(header.get(name, "")) for name in ("Modality", "SeriesDescription")).strip()
            known = found.series.get(uid, Series(text, str(header.get("PatientID") or ""), ()))
            found.series[uid] = known._replace(files=(*known.files, path))
    return found


def read_dicom(path: Path) -> Volume:
    """Read the series in a folder, or a file, as (X, Y, Z), or (X, Y, Z, 3) of colours in [0, 255].

    Values are rescaled as the files say: Hounsfield units of CT, int32 or float32; of MONOCHROME1, where low is white,
    they are turned round, but for units of CT and nuclear medicine, which only a viewer shows so. Palettes and YBR
    become RGB.

    Raises:
        InputError: a file is missing, damaged, compressed in a manner that is not known, or no image; a folder holds no
            series, or several; slices lie at one place, are missing, or unevenly spaced, or are of several sizes or
            directions; or they do not say where they lie.
    """
    read, geometry = _read(path)
    frames = [frame for own in read for frame in own]
    datasets, order = geometry.header
    wanted = sum(frame.size for frame in frames)
    if wanted > _MOST_VALUES:
        raise InputError(f"{path}: {wanted:,} values, and more than {_MOST_VALUES:,} are not read; give a part of it")
    slices: list[np.ndarray] = []
    for own in read:
        pixels = pixels_of(own[0].dataset, own[0].path, len(own))
        slices += [values_of(stored, frame) for stored, frame in zip(pixels, own)]
        del own[0].dataset.PixelData
    values = np.stack([slices[number] for number in order]).swapaxes(0, 2)
    if len(datasets) == len(frames):
        datasets, order = tuple(datasets[number] for number in order), tuple(range(len(order)))
    return Volume(values, dataclasses.replace(geometry, header=Source(datasets, order)))


def geometry_of(path: Path) -> Geometry:
    """Where the series in a folder, or a file, lies, from its headers alone.

    Raises:
        InputError: as `read_dicom`.
    """
    return _read(path, pixels=False)[1]


def _read(path: Path, pixels: bool = True) -> tuple[list[list[Frame]], Geometry]:
    """The frames of each file, and where they lie; the header is in the files' order."""
    files: Sequence[Path] = [path]
    if path.is_dir():
        series = list(find_series(path).series.values())
        if not series:
            raise InputError(f"{path}: holds no DICOM image; give the folder of a series")
        if len(series) > 1:
            named = "; ".join(f"{len(one.files)} files of {one.description}" for one in series)
            raise InputError(f"{path}: holds {len(series)} series ({named}); keep each in a folder of its own")
        files = series[0].files
    read = [frames_of(file, pixels=pixels) for file in files]
    frames = [frame for own in read for frame in own]
    order, affine = stack(frames)
    first = frames[0].dataset
    shape = (int(first.Columns), int(first.Rows), len(frames))
    return read, Geometry(shape, affine, Source(tuple(own[0].dataset for own in read), order))
