"""TIFF files (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf): what Pillow passes over in them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note

_BITS, _PHOTOMETRIC, _PLANES, _EXTRA, _FORMAT = 258, 262, 284, 338, 339  # tags
_WHITE_IS_ZERO, _EACH_ITS_OWN, _SIGNED = 0, 2, 2


def check_pixels(path: Path, image: Image.Image) -> None:
    """Refuse a decoded TIFF whose pixels Pillow garbles, turns round or takes for others; note what is not certain.

    Raises:
        InputError: it has more than 8 bits and a plane for each colour, or 0 for white; or 8 bits with negative values.
    """
    tags = image.tag_v2
    bits = max(tags.get(_BITS, (1,)))
    if bits > 8 and tags.get(_PLANES) == _EACH_ITS_OWN:
        raise InputError(f"{path}: {bits}-bit colours, each in a plane of its own; export it with 8 bits a channel")
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        if bits > 8:
            raise InputError(f"{path}: {bits}-bit grey in which 0 is white; export it with 0 as black")
        note(path, "says that 0 is white, and is read so")  # as masks of true and false have it that tifffile writes
    if image.mode == "L" and _SIGNED in tags.get(_FORMAT, ()) and image.getextrema()[1] > 127:
        raise InputError(f"{path}: holds values below 0; export it with 8 or 16 bits, without signs")
    if 0 in tags.get(_EXTRA, ()):
        note(path, "has channels of unknown meaning; they are left out")
