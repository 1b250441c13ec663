"""Where the frames of DICOM files lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note
from medsegdiff.io.dicom.files import Frame

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ALIKE = ("Rows", "Columns", "PhotometricInterpretation")
_UNEVEN = 0.05  # of a slice's distance; positions are rounded when written


def stack(frames: Sequence[Frame]) -> tuple[tuple[int, ...], np.ndarray]:
    """The order of the frames along the patient, and the affine (4, 4) from voxels to millimetres in RAS.

    The slices of a tilted gantry, each a little beside the last, are sheared in the affine as they are in the patient.

    Raises:
        InputError: the frames do not say where they lie, or are no stack of even slices.
    """
    spacing = frames[0].numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    places = [frame.numbers("PlanePositionSequence", "ImagePositionPatient", 3) for frame in frames]
    ways = [frame.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6) for frame in frames]
    affine = np.eye(4)
    if len(frames) == 1 and (places[0] is None or ways[0] is None):  # a picture, as of ultrasound
        if spacing is None:
            note(frames[0].path, "does not give its pixel size; distances assume 1 mm")
        affine[:2, :2] = np.diag([1.0, 1.0] if spacing is None else spacing[::-1])
        return (0,), LPS_TO_RAS @ affine
    for frame, place, way in zip(frames, places, ways):
        same = frame.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
        if place is None or way is None or same is None or not (same > 0).all():
            raise InputError(f"{frame.path}: does not say where its pixels lie in the patient; export the series again")
        across = way.reshape(2, 3)
        if not np.allclose(across @ across.T, np.eye(2), atol=1e-2):
            raise InputError(f"{frame.path}: its rows and columns are not at right angles; export the series again")
        first = frames[0]
        if not np.allclose(way, ways[0], atol=1e-3) or not np.allclose(same, spacing, rtol=1e-3):
            raise InputError(
                f"{frame.path}: another direction or spacing than {first.path.name}; remove or separate them"
            )
        if any(frame.dataset[name].value != first.dataset[name].value for name in _ALIKE):
            raise InputError(f"{frame.path}: other sizes or pixels than {first.path.name}; remove or separate them")
    rows, columns = ways[0].reshape(2, 3)
    normal, points = np.cross(rows, columns), np.array(places)
    order = np.argsort(points @ normal, kind="stable")
    step = _step([frames[number].path for number in order], points[order], normal)
    if step is None:
        thickness = frames[0].numbers("PixelMeasuresSequence", "SliceThickness", 1)
        step = normal * (1.0 if thickness is None or thickness[0] <= 0 else thickness[0])
    affine[:3] = np.column_stack([rows * spacing[1], columns * spacing[0], step, points[order[0]]])
    return tuple(map(int, order)), LPS_TO_RAS @ affine


def _step(paths: Sequence[Path], points: np.ndarray, normal: np.ndarray) -> Optional[np.ndarray]:
    """The vector from a slice to the next one, of slices in order; None of a single one."""
    if len(points) == 1:
        return None
    gaps = np.diff(points @ normal)
    usual = float(np.median(gaps))
    for number, gap in enumerate(gaps):
        between = f"{paths[number].name} and {paths[number + 1].name}"
        where, off = f"{paths[0].parent}: {between}", abs(gap - usual)
        if gap < 1e-3:
            raise InputError(f"{where} lie at the same place; keep each time or kind of image in a folder of its own")
        if off > _UNEVEN * usual:
            missing = round(gap / usual) - 1
            if missing > 0 and abs(gap / usual - missing - 1) < 2 * _UNEVEN:
                raise InputError(f"{where}: {missing} slices are missing between them; restore them")
            raise InputError(f"{where} are {gap:.3g} mm apart, others {usual:.3g} mm; resample the series evenly")
    line = np.linspace(points[0], points[-1], len(points))
    off = np.abs(points - line).max(axis=1)
    if off.max() > _UNEVEN * usual:
        worst = paths[int(off.argmax())]
        raise InputError(f"{worst}: lies {off.max():.3g} mm beside the line of the other slices; resample the series")
    return (points[-1] - points[0]) / (len(points) - 1)
