"""The checksums of PNG files (https://www.w3.org/TR/png/#5Chunk-layout)."""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO

_SIGNATURE, _BLOCK = 8, 1 << 20  # bytes


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
