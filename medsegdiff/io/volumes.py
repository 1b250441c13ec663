"""Volumes and where they lie in the patient; NIfTI files of them.

Values are (X, Y, Z) or, of several channels in one file, (X, Y, Z, C), in the order in which the file has them. Slices
are (D, H, W), as a viewer shows them, whatever that order is: the patient's left at the right of axial and coronal
ones, the front at the left of sagittal ones, the head up.
"""

from __future__ import annotations

import dataclasses
import heapq
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import is_folder
from medsegdiff.io.dicom.files import is_dicom
from medsegdiff.io.labels import whole_numbers
from medsegdiff.io.pictures import is_picture

SUFFIXES = (".nii.gz", ".nii")
DICOM = ".dcm"
Axis = Literal["axial", "coronal", "sagittal"]
# Where slices, rows and columns go to: superior, posterior, left, inferior.
_DIRECTIONS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
_FIRST = 16  # files of a folder: beside a series lie texts and the like
_MOST_LEVELS = 32  # of a mask that is a picture; grey edges have more


@dataclass(frozen=True)
class Geometry:
    """A grid of voxels in the patient."""

    shape: tuple[int, int, int]
    affine: np.ndarray
    """(4, 4) float64: from a voxel's indices to millimetres towards the patient's right, front and head (RAS)."""
    header: Any = None
    """What the file says besides, in its reader's own form; it is written back."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The voxel's sides along X, Y and Z in millimetres."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    def differs(self, other: Geometry, voxels: float = 0.5) -> str:
        """How `other` is another grid, in words; empty if it is the same, its corners to so many voxels' sides."""
        if self.shape != other.shape:
            return f"{by(other.shape)} voxels, not {by(self.shape)}"
        corners = np.array([(*np.multiply(at, self.shape), 1) for at in np.ndindex(2, 2, 2)])
        distance = np.abs(corners @ (self.affine - other.affine).T)[:, :3].max()
        return f"its corners lie up to {distance:.3g} mm off" if distance > voxels * min(self.spacing) else ""


class Volume(NamedTuple):
    """What a file holds."""

    values: np.ndarray
    """(X, Y, Z) or (X, Y, Z, C): of the file's own type, or float32 or float64 where the file scales them."""
    geometry: Geometry


def is_volume(path: Path) -> bool:
    """Whether it is named as a NIfTI or DICOM file, or is the folder of a DICOM series."""
    return path.name.lower().endswith((*SUFFIXES, DICOM)) or is_series(path)


def is_series(path: Path) -> bool:
    """Whether it is a folder with a DICOM file among its first files, pictures and NIfTI files apart."""
    if not is_folder(path):
        return False
    try:
        others = (file for file in path.iterdir() if not (is_picture(file) or file.name.lower().endswith(SUFFIXES)))
        files = heapq.nsmallest(_FIRST, (file for file in others if file.is_file() and file.name[0] != "."))
    except OSError:  # forbidden: said by who reads it
        return False
    return any(map(_begins_as_dicom, files))


def _begins_as_dicom(path: Path) -> bool:
    with suppress(InputError):  # forbidden, or empty: said by who reads it
        return is_dicom(path)
    return False


def stem(path: Path) -> str:
    """A file's name without its suffix, `.nii.gz` being one."""
    name = path.name
    if is_folder(path):
        return name
    return next((name[: -len(end)] for end in SUFFIXES if name.lower().endswith(end)), path.stem)


def read_volume(path: Path, image: Optional[Path] = None) -> Volume:
    """Read a NIfTI file, values as its slope and intercept scale them; or of DICOM what `io.dicom` reads.

    On the grid of the `image` that they were drawn on masks are read that do not say where they lie: pictures, of one
    slice; and DICOM segmentations, which may hold some slices only.

    Raises:
        InputError: the file is missing, empty, damaged, no NIfTI file, of complex numbers or colours, or has not three
            axes of space.
    """
    if _is_dicom(path):
        return _read_dicom(path, image)
    if image is not None and is_picture(path):
        return _read_picture(path, image)
    from medsegdiff.io.nifti import read_nifti

    return read_nifti(path)


def read_label_volume(path: Path, image: Optional[Path] = None) -> Volume:
    """Read a mask as `read_volume` does: whole numbers (X, Y, Z).

    Where its grid differs from that of its `image` in the order and direction of axes alone, as that of a converted
    DICOM series does, it is brought to that.

    Raises:
        InputError: as `read_volume`, or it has channels, or values that are no whole numbers.
    """
    values, geometry = read_volume(path, image)
    if values.ndim > 3:
        raise InputError(f"{path}: has channels, where a mask holds labels; export it again")
    found = Volume(whole_numbers(values, path), geometry)
    with suppress(InputError):  # who reads the image says it
        return found if image is None or not is_volume(image) else _in_order_of(found, geometry_of(image))
    return found


def _in_order_of(volume: Volume, geometry: Geometry) -> Volume:
    """The same voxels in the order that another grid has, where that is the only difference."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

    old = volume.geometry
    order = ornt_transform(io_orientation(old.affine), io_orientation(geometry.affine))
    values, affine = apply_orientation(volume.values, order), old.affine @ inv_ornt_aff(order, old.shape)
    turned = Geometry(values.shape, affine, geometry.header)
    return volume if geometry.differs(turned) else Volume(values, turned)


def _is_dicom(path: Path) -> bool:
    return is_folder(path) or path.name.lower().endswith(DICOM)


def _read_dicom(path: Path, image: Optional[Path]) -> Volume:
    from medsegdiff.io.dicom.segmentation import is_segmentation, read_segmentation
    from medsegdiff.io.dicom.series import read_dicom

    if not is_segmentation(path):
        return read_dicom(path)
    if image is None:
        raise InputError(f"{path}: a segmentation without its image; keep both in the dataset")
    geometry = geometry_of(image)
    return Volume(read_segmentation(path, geometry), geometry)


def _read_picture(path: Path, image: Path) -> Volume:
    """A mask (H, W) as (W, H, 1): files of DICOM have the columns first."""
    from medsegdiff.io.masks import read_labels

    values = read_labels(path).T[..., None]
    levels = len(np.unique(values))
    if levels > _MOST_LEVELS:
        raise InputError(f"{path}: holds {levels} grey levels, where a mask has few; export it black and white, as PNG")
    return Volume(values, dataclasses.replace(geometry_of(image), shape=values.shape))


def geometry_of(path: Path) -> Geometry:
    """Where a volume lies, from headers alone.

    Raises:
        InputError: as `read_volume`.
    """
    from medsegdiff.io import nifti
    from medsegdiff.io.dicom import series

    return series.geometry_of(path) if _is_dicom(path) else nifti.geometry_of(path)


def slices_of(path: Path, axis: str = "axial") -> int:
    """How many slices a file has across an axis, as its header says; 1 of what is no volume.

    Raises:
        InputError: as `read_volume`.
    """
    if not is_volume(path):
        return 1
    geometry = geometry_of(path)
    return dict(zip(_orientation(geometry, axis)[:, 0].tolist(), geometry.shape))[0]


def write_volume(path: Path, values: np.ndarray, geometry: Geometry) -> None:
    """Write (X, Y, Z) or (X, Y, Z, C) as NIfTI: affine, codes, units, description and axes as the input's header says.

    Fractions, which must be in [0, 1], take 16 bits: the header says that 65535 is 1.

    Raises:
        ValueError: the shape is not the geometry's.
    """
    import nibabel

    if values.shape[:3] != geometry.shape:
        raise ValueError(f"values of shape {values.shape} for a grid of {geometry.shape}")
    old = geometry.header if isinstance(geometry.header, nibabel.Nifti1Header) else None
    kind = nibabel.Nifti2Image if isinstance(old, nibabel.Nifti2Header) else nibabel.Nifti1Image
    fractions = values.dtype.kind == "f"
    stored = np.rint(values * 65535).astype(np.uint16) if fractions else values
    if old is not None and np.prod(old.get_data_shape()) == stored.size:
        stored = stored.reshape(old.get_data_shape())  # of two axes, or with a last one of length 1
    image = kind(stored, None if old is not None else geometry.affine, old, dtype=stored.dtype)
    header = image.header
    if old is None:
        header.set_xyzt_units("mm")
    header.set_slope_inter(*((1 / 65535, 0) if fractions else (None, None)))
    header["cal_min"] = header["cal_max"] = 0  # a viewer's window for the input's values
    header.extensions.clear()
    nibabel.save(image, path)


def to_slices(values: np.ndarray, geometry: Geometry, axis: str = "axial") -> np.ndarray:
    """The slices across an axis: (X, Y, Z, ...) to (D, H, W, ...), see above. A view where possible."""
    from nibabel.orientations import apply_orientation

    return apply_orientation(values, _orientation(geometry, axis))


def from_slices(slices: np.ndarray, geometry: Geometry, axis: str = "axial", channels: bool = False) -> np.ndarray:
    """Back from slices: (D, H, W) to (X, Y, Z); with `channels` (D, M, H, W) to (M, X, Y, Z)."""
    if channels:
        return np.stack([from_slices(slices[:, place], geometry, axis) for place in range(slices.shape[1])])
    order = _orientation(geometry, axis)
    flipped = np.flip(slices, [int(to) for to, sign in order if sign < 0])
    return np.moveaxis(flipped, [int(to) for to, _ in order], range(3))


def _orientation(geometry: Geometry, axis: str) -> np.ndarray:
    """For each of X, Y and Z the axis of the slices that it becomes, and whether it is turned round (-1)."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return ornt_transform(io_orientation(geometry.affine), axcodes2ornt(_DIRECTIONS[axis]))


def by(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))
