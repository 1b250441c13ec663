"""The pixels of DICOM files, in their units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.io.dicom.files import Frame, quiet

_MEASURED = ("CT", "PT", "NM")  # modalities whose values have units, however they are shown


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


def values_of(stored: np.ndarray, frame: Frame) -> np.ndarray:
    """A frame's values in their units; colours as they are."""
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
    turned = kind == "MONOCHROME1" and dataset.get("Modality") not in _MEASURED
    return type(values[0, 0])(sum(ends)) - values if turned else values
