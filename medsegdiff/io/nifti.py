"""NIfTI files, read whole: with their checksums, and with a note on what of a header is not certain."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Union

import nibabel
import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note, reading
from medsegdiff.io.volumes import Geometry, Volume, by

_GZIP = b"\x1f\x8b"
_HEADER, _BLOCK = 540, 1 << 20  # bytes; the header of the second version is the longer one
_MOST_REST = 64  # blocks after the voxels, which nothing needs
_MOST_VOXELS = 1 << 31


class _Opened(NamedTuple):
    file: Union[BinaryIO, gzip.GzipFile]
    image: Any
    shape: tuple[int, ...]
    """Of three axes, or four where there are channels."""
    geometry: Geometry


def read_nifti(path: Path) -> Volume:
    """Read a file, compressed or not, whatever its name says of that.

    Raises:
        InputError: the file is missing, empty, damaged, no NIfTI file, of complex numbers or colours, or has not three
            axes of space.
    """
    with _opened(path) as (file, image, shape, geometry):
        values = np.asanyarray(image.dataobj).reshape(shape)
        rest = 0  # it compares the checksum at its end
        while isinstance(file, gzip.GzipFile) and file.read(_BLOCK):
            rest += 1
            if rest > _MOST_REST:
                raise InputError(f"{path}: has much data after its last voxel; export it again")
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels of type {values.dtype}, where numbers are read; export its channels apart")
    return Volume(values, geometry)


def geometry_of(path: Path) -> Geometry:
    """Where a file's voxels lie, from its header alone.

    Raises:
        InputError: as `read_nifti`.
    """
    with _opened(path) as opened:
        return opened.geometry


def shape_of(path: Path) -> tuple[int, ...]:
    """A file's axes, of three or, where there are channels, four, from its header alone.

    Raises:
        InputError: as `read_nifti`.
    """
    with _opened(path) as opened:
        return opened.shape


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)  # what it says is noted, or refused
    with reading(path) as raw:
        try:
            file = gzip.GzipFile(fileobj=raw) if raw.read(2) == _GZIP else raw
            for start in (raw, file):
                start.seek(0)
            block = file.read(_HEADER)
            known = (nibabel.Nifti1Image, nibabel.Nifti2Image)
            kind = next((kind for kind in known if kind.header_class.may_contain_header(block)), None)
            if kind is None:
                raise InputError(f"{path}: not a NIfTI file; convert it to .nii.gz")
            image = kind.from_file_map({"image": nibabel.FileHolder(fileobj=file)})
            shape = _shape(path, image.shape)
            geometry = Geometry(shape[:3], _affine(path, image), image.header)
            _note_doubts(path, kind.header_class.diagnose_binaryblock(block[: kind.header_class.sizeof_hdr]), geometry)
            yield _Opened(file, image, shape, geometry)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # on damaged files it raises nearly anything
            line = " ".join(str(error).split()).partition(" from ")[0]  # then the number of the open file
            raise InputError(f"{path}: damaged or no NIfTI file ({line}); download or export it again") from None


def _shape(path: Path, stored: tuple[int, ...]) -> tuple[int, ...]:
    shape = stored
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    shape = shape + (1,) * (3 - len(shape))
    if len(shape) > 4 or min(shape) < 1 or np.prod(shape, dtype=float) > _MOST_VOXELS:
        raise InputError(f"{path}: is of {by(stored)} voxels; three axes and channels are read, up to 2^31 voxels")
    return shape


def _affine(path: Path, image: Any) -> np.ndarray:
    affine = np.array(image.affine, np.float64)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sides > 0).all() or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-6:
        raise InputError(f"{path}: its affine does not give the position of voxels; export it again")
    return affine


def _note_doubts(path: Path, repairs: str, geometry: Geometry) -> None:
    """Say what nibabel repaired in a header, and what other programs may read in another way."""
    if repairs:
        note(path, f"its header was repaired while reading: {'; '.join(repairs.splitlines())}")
    header = geometry.header
    unit = header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        note(path, f"says that its axes are in {unit}s; they are taken for millimetres")
    other = None
    with suppress(ValueError, np.linalg.LinAlgError):  # where the sform is good, a damaged qform says nothing
        other = header.get_qform(coded=True)[0]
    if other is not None and header["sform_code"] and geometry.differs(Geometry(geometry.shape, other)):
        note(path, "its sform and qform differ; the sform is used, other programs may use the qform")
