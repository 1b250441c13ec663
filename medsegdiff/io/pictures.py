"""Image files as 8-bit arrays, whatever their mode, and one clear line when they cannot be read."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medsegdiff.base.errors import InputError
from medsegdiff.io.arrays import to_rgb

_SIXTEEN_BIT = 65535
_HIGHEST_LABEL = 255
_ORIENTATION = 0x0112  # EXIF tag; from 5 on the picture is stored lying on its side


def read_image(path: Path) -> np.ndarray:
    """Read a colour image as uint8 (H, W, 3), RGB in [0, 255].

    Upright by its EXIF orientation. Grey becomes three equal channels, CMYK and palettes their colours;
    16-bit grey is divided by 257, so that full range stays full range. Alpha is dropped, not composited:
    the colours under it are what the camera saw, and the published preprocessing does the same.

    Raises:
        InputError: the file is missing, forbidden, empty, cut off, or of no readable format.
    """
    with _opened(path) as image:
        if _is_deep(image):
            grey = np.rint(_deep_values(image, path) / 257).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return to_rgb(image)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as uint8 (H, W): grey levels in [0, 255], 0 is background.

    Colours, a palette's too, become their luminance and alpha is dropped, as published. 16-bit values are
    divided by 257 and rounded up, so that no label becomes background.

    Raises:
        InputError: as `read_image`.
    """
    with _opened(path) as image:
        if _is_deep(image):
            return np.ceil(_deep_values(image, path) / 257).astype(np.uint8)
        if image.mode == "L":
            return np.array(image)
        return np.array((image.convert("RGBA") if image.mode == "P" else image).convert("RGB").convert("L"))


def read_labels(path: Path) -> np.ndarray:
    """Read a mask of several classes as uint8 (H, W): the index of each pixel's class, 0 is background.

    The indices are what the file stores: a palette's entries, not their colours, and grey values as they are,
    those of files with 1, 2, 4 or 16 bits a pixel, too. Upright by its EXIF orientation.

    Raises:
        InputError: as `read_image`, or the image is in colour, has an alpha channel or holds a value above 255.
    """
    with _file(path) as file, Image.open(file) as image:
        step = _grey_step(image)
    with _opened(path) as image:
        if _is_deep(image):
            values = _deep_values(image, path)
            if values.max() > _HIGHEST_LABEL:
                raise InputError(
                    f"{path}: holds the value {values.max()}, but class indices end at {_HIGHEST_LABEL}; "
                    "export the mask as class indices in a grey or palette PNG"
                )
            return values.astype(np.uint8)
        if image.mode not in ("1", "L", "P"):
            raise InputError(
                f"{path}: in colour or with alpha ({image.mode}), where class indices were expected; "
                "export the mask as class indices in a grey or palette PNG"
            )
        return np.array(image).astype(np.uint8) // np.uint8(step)


def image_size(path: Path) -> tuple[int, int]:
    """The upright (height, width) in pixels, from the file's header alone.

    Raises:
        InputError: the file is missing, forbidden, empty, or of no readable format.
    """
    with _file(path) as file, Image.open(file) as image:
        width, height = image.size
        # Pillow already turns a TIFF's size, and would decode a whole PNG to look for late EXIF.
        turned = image.format != "TIFF" and "exif" in image.info
        if turned and image.getexif().get(_ORIENTATION, 1) >= 5:
            return width, height
        return height, width


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The decoded, upright image."""
    with _file(path) as file, Image.open(file) as image:
        image.load()
        yield ImageOps.exif_transpose(image)


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """The open file; whatever Pillow and the system say about a bad one becomes one `InputError`.

    Pillow gets it open, not by name: files it opens itself it may map, and it garbles a mapped TIFF that
    lies on its side.
    """
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(f"{path}: the file is empty (0 bytes); fetch or export it again")
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder, where an image file was expected") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image of a known format; use PNG, JPEG or TIFF") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels to be read safely; make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        # Pillow's decoders raise any of these on a cut or damaged stream.
        raise InputError(f"{path}: damaged or cut off ({error}); fetch or export it again") from error


def _grey_step(image: Image.Image) -> int:
    """What Pillow multiplies the grey values of a file by: below 8 bits it stretches them to full range.

    `image` is not loaded yet: afterwards Pillow no longer knows.
    """
    arguments = image.tile[0][3] if image.tile else ""
    stored = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return {"L;2": 255 // 3, "L;4": 255 // 15}.get(stored, 1)


def _is_deep(image: Image.Image) -> bool:
    """Whether the pixels are wider than 8 bits, which Pillow's own conversion would clip."""
    return image.mode.startswith("I") or image.mode == "F"


def _deep_values(image: Image.Image, path: Path) -> np.ndarray:
    """Pixels of a 16-bit grey image, (H, W) in [0, 65535]; old Pillow opens these in mode I, too."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > _SIXTEEN_BIT:
        raise InputError(f"{path}: pixels are not 8-bit or 16-bit whole numbers; export it as one of these")
    return values
