"""PNG files (https://www.w3.org/TR/png): writing, and the checksums that Pillow passes over."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

_SIGNATURE, _BLOCK = 8, 1 << 20  # bytes
_LEVEL = 2  # of 9; photographs are 14 % larger than at 6, the usual one, probabilities 18 %


def write_png(path: Path, pixels: np.ndarray, palette: Sequence[int] = ()) -> None:
    """Write grey, uint8 or uint16 (H, W), colours, uint8 (H, W, 3), or indices of `palette`, RGB of each in a row."""
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(palette)
    picture.save(path, format="PNG", compress_level=_LEVEL)


def check_pixels(file: BinaryIO) -> None:
    """Compare the checksums of a PNG's pixels, which Pillow passes over: it shows damaged ones where it can.

    Raises:
        ValueError: one differs.
    """
    file.seek(_SIGNATURE)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind != b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        found, left = zlib.crc32(kind), length
        while block := file.read(min(left, _BLOCK)):
            found, left = zlib.crc32(block, found), left - len(block)
        if file.read(4) != found.to_bytes(4, "big"):
            raise ValueError("a checksum differs")
