"""What comes in: files with their names, in base64, which lie in a folder for as long as they are worked on."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.data.cases import Case, from_files
from medsegdiff.data.drawing import draw
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.dicom.files import is_dicom
from medsegdiff.io.dicom.series import geometry_of
from medsegdiff.io.pictures import size_of
from medsegdiff.io.volumes import DICOM, SUFFIXES, is_volume

EXAMPLES = ("generated 1", "generated 2")
SERIES = "series"
"""What several DICOM files are called together."""

_NO_FILES = "files: not an object of names and contents"

Files = Mapping[str, Optional[str]]
"""Contents in base64 by the files' names; None of what was not sent, for its size."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What may come in."""

    megabytes: int = 32
    megapixels: int = 25
    """Of all slices together."""
    waiting: int = 16


def files_of(text: str) -> Files:
    """The files in the JSON object that the page sends.

    Raises:
        InputError: it is none.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(_NO_FILES)
    return found


def example(name: str, folder: Path) -> Case:
    """A generated picture, written into `folder`."""
    path = folder / f"{name.replace(' ', '-')}.png"
    Image.fromarray(draw(generator("example", name), 256)[0]).save(path)
    return Case(path.stem, (path,))


def case_of(files: Files, folder: Path, bounds: Bounds, spec: DataSpec) -> Case:
    """Write files into `folder`: a picture, a volume, its channels ID_0000, ID_0001, ..., or a DICOM series.

    Raises:
        InputError: they are too large, not one image, or a name cannot be a file's.
    """
    paths = _write(files, folder, bounds)
    several = spec.channels > 1 and not spec.colour
    if len(paths) > 1 and all(map(is_dicom, paths)):
        whole = folder / SERIES
        whole.mkdir()
        for path in paths:
            path.rename(whole / path.name)
        cases = [Case(SERIES, (whole,))]
    else:
        cases = from_files([_named(path) for path in paths], several)
    if len(cases) != 1:
        raise InputError("files: several images; give one, or the files of one volume or DICOM series")
    for path in cases[0].channels:
        _check_size(path, bounds)
    return cases[0]


def truth_of(files: Files, folder: Path, bounds: Bounds, case: Case, spec: DataSpec, classes: int) -> np.ndarray:
    """Write a ground truth into `folder` and read it: bool (D, H, W), the foreground of each slice of the `case`.

    Raises:
        InputError: it is too large, several files, cannot be read, or is not of this image.
    """
    (path, *more) = _write(files, folder, bounds)
    if more:
        raise InputError(f"{more[0].name}: a second ground truth; give one file")
    path = _named(path)
    _check_size(path, bounds)
    source = read_source(case, spec)
    if is_volume(path) != is_volume(case.image):
        raise InputError(f"{path.name}: a volume needs a volume as ground truth, a picture a picture; give that")
    return read_classes(dataclasses.replace(case, mask=path), spec, classes, source) > 0


def _write(files: Files, folder: Path, bounds: Bounds) -> list[Path]:
    if not isinstance(files, Mapping) or not all(isinstance(content, (str, type(None))) for content in files.values()):
        raise InputError(_NO_FILES)  # of a program, which may send anything
    if not files:
        raise InputError("files: none; give an image")
    folder.mkdir(parents=True, exist_ok=True)
    paths, total = [], 0
    for name, content in files.items():
        path = folder / name
        if not name or name != path.name or name.startswith(".") or not name.isprintable() or len(name.encode()) > 200:
            raise InputError(f"{name[:40]!r}: cannot be a file's name; rename it")
        total += len(content or "") * 3 // 4
        if content is None or total > bounds.megabytes * 10**6:
            raise InputError(f"{name}: more than the {bounds.megabytes} MB that are accepted here; make it smaller")
        try:
            path.write_bytes(base64.b64decode(content, validate=True))
        except (binascii.Error, ValueError):
            raise InputError(f"{name}: is not base64") from None
        paths.append(path)
    return paths


def _named(path: Path) -> Path:
    """A DICOM file often lacks the suffix by which it is known."""
    if not path.name.lower().endswith((DICOM, *SUFFIXES)) and path.stat().st_size and is_dicom(path):
        return path.rename(path.with_name(path.name + DICOM))
    return path


def _check_size(path: Path, bounds: Bounds) -> None:
    """Refuse an image of too many pixels by its header, before it is decoded."""
    shape: Any = ()
    with contextlib.suppress(Exception):  # what it is not, reading says
        shape = _shape(path)
    if prod(shape) > bounds.megapixels * 10**6:
        limit = f"more than the {bounds.megapixels} million pixels that are accepted here; make it smaller"
        raise InputError(f"{path}: {' x '.join(map(str, shape))}, {limit}")


def _shape(path: Path) -> tuple[int, ...]:
    from medsegdiff.io.nifti import shape_of

    if path.name.lower().endswith(SUFFIXES):
        return shape_of(path)
    return geometry_of(path).shape if is_volume(path) else size_of(path)
