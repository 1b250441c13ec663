"""DICOM segmentations: masks that refer to the images they were drawn on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff import __version__
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing
from medsegdiff.base.reading import note
from medsegdiff.io.dicom.files import Frame, frames_of, read_file
from medsegdiff.io.dicom.geometry import LPS_TO_RAS
from medsegdiff.io.dicom.pixels import pixels_of
from medsegdiff.io.dicom.series import Source
from medsegdiff.io.volumes import Geometry

_TISSUE = ("85756007", "SCT", "Tissue")  # what is segmented is not known here
_HALF = 0.5
_MOST_SEGMENTS = 255


def is_segmentation(path: Path) -> bool:
    """Whether a DICOM file is one."""
    return path.is_file() and read_file(path, pixels=False).get("Modality") == "SEG"


def read_segmentation(path: Path, geometry: Geometry) -> np.ndarray:
    """Read a DICOM SEG on the grid of its image: the number of each voxel's segment, uint8 (X, Y, Z), 0 without.

    Of fractional segments what is above one half counts. Where segments overlap, the one with the highest number does,
    with a note.

    Raises:
        InputError: the file is no segmentation, damaged, or lies on another grid.
    """
    frames = frames_of(path, of_segments=True)
    dataset = frames[0].dataset
    stored = pixels_of(dataset, path, len(frames))
    kind = str(dataset.get("SegmentationType"))
    if kind == "FRACTIONAL":
        stored = stored > _HALF * float(dataset.get("MaximumFractionalValue", 255))
    to_voxel = np.linalg.inv(geometry.affine) @ LPS_TO_RAS
    labels, overlap = np.zeros(geometry.shape, np.uint8), False
    for frame, pixels in zip(frames, stored.swapaxes(1, 2)):
        place = frame.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
        way = frame.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
        spacing = frame.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
        if place is None or way is None or spacing is None:
            raise InputError(f"{path}: does not say where its frames lie; export it again")
        corner = to_voxel @ [*place, 1]
        steps = to_voxel[:3, :3] @ np.column_stack([way[:3] * spacing[1], way[3:] * spacing[0]])
        low = np.rint(corner[:3]).astype(int)
        high = low + np.array([*pixels.shape, 1])
        far = np.abs(steps - np.eye(3)[:, :2]).max() * max(pixels.shape)
        if far > _HALF or np.abs(corner[:3] - low).max() > 0.1 or (low < 0).any() or (high > geometry.shape).any():
            raise InputError(f"{path}: lies on another grid than its image; resample it to the image")
        inside = labels[low[0] : high[0], low[1] : high[1], low[2]]
        mine = _numbers(frame, pixels, kind)
        overlap = overlap or bool(((inside > 0) & (mine > 0)).any())
        np.maximum(inside, mine, out=inside)
    if overlap:
        note(path, "its segments overlap; there the one with the highest number counts")
    return labels


def _numbers(frame: Frame, pixels: np.ndarray, kind: str) -> np.ndarray:
    """The segments' numbers in a frame, uint8."""
    segment = frame.get("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    found = pixels if kind == "LABELMAP" else (pixels > 0) * np.int64(segment or 0)
    if (not segment and kind != "LABELMAP") or found.max(initial=0) > _MOST_SEGMENTS:
        wrong = f"names no segment from 1 to {_MOST_SEGMENTS}"
        raise InputError(f"{frame.path}: a frame {wrong}; export it again, with fewer segments")
    return found.astype(np.uint8)


def write_segmentation(
    path: Path, labels: np.ndarray, geometry: Geometry, names: Optional[Mapping[int, str]] = None
) -> None:
    """Write labels as a DICOM SEG that refers to the images they were made of.

    Args:
        path: the file.
        labels: whole numbers (X, Y, Z), 0 is background.
        geometry: of the volume that `series.read_dicom` read.
        names: of the labels; "class N" by default. Each is a segment, whether it occurs or not.

    Raises:
        ValueError: the shape is not the geometry's, or it is not of DICOM images.
        InputError: the images' headers lack what a segmentation must repeat, or the disk refuses.
    """
    import highdicom
    from highdicom.seg import Segmentation, SegmentDescription

    logging.getLogger("highdicom").setLevel(logging.ERROR)  # it tells of empty masks
    source = geometry.header
    if not isinstance(source, Source) or labels.shape != geometry.shape:
        raise ValueError(f"labels of shape {labels.shape} for a grid of {geometry.shape} of DICOM images")
    names = dict(names or {int(label): f"class {label}" for label in np.unique(labels) if label} or {1: "class 1"})
    tissue = highdicom.sr.CodedConcept(*_TISSUE)
    family = highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
    algorithm = highdicom.AlgorithmIdentificationSequence("MedSegDiff", version=__version__, family=family)
    segments = [
        SegmentDescription(number, name, tissue, tissue, "AUTOMATIC", algorithm)
        for number, name in enumerate((names[label] for label in sorted(names)), start=1)
    ]
    frames = np.empty((geometry.shape[2], geometry.shape[1], geometry.shape[0], len(segments)), np.uint8)
    for number, label in enumerate(sorted(names)):
        frames[list(source.order), ..., number] = label == labels.T
    first = source.datasets[0]
    try:
        written = Segmentation(
            source_images=list(source.datasets),
            pixel_array=frames,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=int(first.get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="medsegdiff",
            manufacturer_model_name="medsegdiff",
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: no segmentation can refer to these images ({line}); write NIfTI instead") from error
    with replacing(path) as beside:
        written.save_as(beside)
