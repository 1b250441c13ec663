"""The pixels of DICOM files, in their units or as a window shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.dicom.files import Frame, quiet


def pixels_of(dataset: Any, path: Path, count: int) -> np.ndarray:
    """What is stored: (count, rows, columns), or uint8 (count, rows, columns, 3) of colours.

    Raises:
        InputError: it is damaged, compressed in a manner that is not known, or of colours wider than 8 bits.
    """
    import pydicom

    try:  # of version 3, or before
        from pydicom import pixels as tools
    except ImportError:
        from pydicom.pixel_data_handlers import util as tools
    kind = str(dataset.PhotometricInterpretation)
    with quiet():
        try:
            stored = dataset.pixel_array
            if kind == "PALETTE COLOR":
                stored = tools.apply_color_lut(stored, dataset)
                stored = (stored >> 8 if stored.dtype == np.uint16 else stored)[..., :3].astype(np.uint8)
            elif kind.startswith("YBR_FULL") and int(pydicom.__version__.split(".")[0]) < 3:
                stored = tools.convert_color_space(stored, kind, "RGB", per_frame=True)
            shape = (count, int(dataset.Rows), int(dataset.Columns))
            stored = stored.reshape(*shape, 3) if is_colour(kind) else stored.reshape(shape)
        except Exception as error:  # its decoders raise nearly anything
            line, syntax = " ".join(str(error).split())[:200], dataset.file_meta.get("TransferSyntaxUID", "")
            name = getattr(syntax, "name", "unknown")
            hint = "install python-gdcm, or " if "plugin" in line or "handler" in line else ""
            raise InputError(f"{path}: cannot be decoded ({name}: {line}); {hint}export it uncompressed") from None
    if is_colour(kind) and stored.dtype != np.uint8:
        raise InputError(f"{path}: colours of {stored.dtype.itemsize * 8} bits; export it with 8 bits a channel")
    return stored


def is_colour(kind: str) -> bool:
    """Whether a photometric interpretation is one of colours."""
    return not kind.startswith("MONOCHROME")


def values_of(stored: np.ndarray, frame: Frame, window: bool) -> np.ndarray:
    """A frame's values in their units, or as the window shows them; colours as they are."""
    kind, dataset = str(frame.dataset.PhotometricInterpretation), frame.dataset
    if is_colour(kind):
        return stored
    if dataset.get("ModalityLUTSequence"):
        raise InputError(f"{frame.path}: a table of values instead of a slope; export the series again")
    slope = frame.numbers("PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = frame.numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)
    a, b = (1.0 if slope is None else slope[0]), (0.0 if intercept is None else intercept[0])
    bits = min(max(1, int(dataset.get("BitsStored") or 16)), 8 * stored.itemsize)
    low = -(1 << (bits - 1)) if dataset.get("PixelRepresentation") else 0
    ends = a * low + b, a * (low + (1 << bits) - 1) + b
    whole = float(a).is_integer() and float(b).is_integer() and max(map(abs, ends)) < 1 << 31
    values = stored.astype(np.int32) * int(a) + int(b) if whole else stored * np.float32(a) + np.float32(b)
    if window:
        values, ends = _windowed(values, frame, min(ends), max(ends)), (0.0, 1.0)
    return type(values[0, 0])(sum(ends)) - values if kind == "MONOCHROME1" else values


def _windowed(values: np.ndarray, frame: Frame, low: float, high: float) -> np.ndarray:
    """Values as the file's first window shows them (DICOM PS3.3, C.11.2.1.2), or from `low` to `high` without one."""
    centre, width = (
        None if value is None else float(np.atleast_1d(np.array(value, dtype=np.float64))[0])
        for value in (frame.get("FrameVOILUTSequence", "WindowCenter"), frame.get("FrameVOILUTSequence", "WindowWidth"))
    )
    function = str(frame.get("FrameVOILUTSequence", "VOILUTFunction") or "LINEAR")
    if centre is None or width is None:
        shown = (values - low) / max(high - low, 1)
    elif function == "SIGMOID":
        shown = 1 / (1 + np.exp(-4 * (values - centre) / width))
    elif function == "LINEAR_EXACT":
        shown = (values - centre) / width + 0.5
    else:
        shown = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.clip(shown, 0, 1).astype(np.float32)
