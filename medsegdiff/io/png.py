"""PNG files (https://www.w3.org/TR/png): fast writing, and the checksums that Pillow passes over."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK, _STRIP = 1 << 20, 1 << 22  # bytes
_GREY, _COLOUR, _PALETTE = 0, 2, 3
_LEFT, _ABOVE = 1, 2  # filters: what is written is the difference to that pixel


def write_png(path: Path, pixels: np.ndarray, palette: Sequence[int] = ()) -> None:
    """Write grey, uint8 or uint16 (H, W), colours, uint8 (H, W, 3), or indices of `palette`, RGB of each in a row.

    Pillow tries all filters for each row, which takes as long as packing. Here maps of 16 bits, which are smooth, are
    differences along the row, and packed in full; of others, differences along the column, repetitions alone are
    packed: photographs have hardly any other. Both take two fifths of Pillow's time at its level 2.
    """
    height, width = pixels.shape[:2]
    deep = pixels.dtype == np.uint16
    kind = _PALETTE if palette else _COLOUR if pixels.ndim == 3 else _GREY
    packer = zlib.compressobj(1, strategy=zlib.Z_DEFAULT_STRATEGY if deep else zlib.Z_RLE)
    step = max(1, _STRIP // pixels[0].nbytes)
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16 if deep else 8, kind, 0, 0, 0))
        if palette:
            _write_chunk(file, b"PLTE", bytes(palette))
        for start in range(0, height, step):
            strip = pixels[start : start + step]
            rows = np.ascontiguousarray(strip, ">u2" if deep else np.uint8).reshape(len(strip), -1).view(np.uint8)
            differences = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
            differences[:, 0], differences[:, 1:] = _LEFT if deep else _ABOVE, rows
            if deep:
                differences[:, 3:] -= rows[:, :-2]
            else:
                differences[1:, 1:] -= rows[:-1]
                if start:
                    differences[0, 1:] -= pixels[start - 1].reshape(-1)
            _write_chunk(file, b"IDAT", packer.compress(differences))
        _write_chunk(file, b"IDAT", packer.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big"))


def check_pixels(file: BinaryIO) -> None:
    """Compare the checksums of a PNG's pixels, which Pillow passes over: it shows damaged ones where it can.

    Raises:
        ValueError: one differs.
    """
    file.seek(len(_SIGNATURE))
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
