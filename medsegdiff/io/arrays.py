"""Pictures that are in memory already, as files are read."""

from __future__ import annotations

from typing import Optional

import numpy as np
from PIL import Image, ImageOps

from medsegdiff.base.errors import InputError

MOST_PIXELS = 100_000_000
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def check_size(what: object, width: int, height: int) -> None:
    """Refuse a picture that is too large.

    Raises:
        InputError: it has more than `MOST_PIXELS`.
    """
    if width * height > MOST_PIXELS:
        raise InputError(too_large(what, f"{width} x {height} pixels"))


def too_large(what: object, size: str) -> str:
    """The words by which a picture of more than `MOST_PIXELS` is refused."""
    millions = MOST_PIXELS // 10**6
    return f"{what}: {size}, and more than {MOST_PIXELS:,} ({millions} million) are not read; make it smaller"


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 (H, W, 3), RGB in [0, 255]: what `pictures.read_image` reads of its file.

    Raises:
        InputError: it is too large or has no pixel, its pixels are wider than 8 bits, or it cannot be decoded.
    """
    check_size("image", image.width, image.height)
    if not image.width * image.height:
        raise InputError(f"image: {image.width} x {image.height} pixels; give one that has some")
    if image.mode not in _EIGHT_BITS:
        raise InputError(
            f"image: a Pillow image of mode {image.mode}, whose range is not known; "
            "give its file's path, or an array of uint8, or of floats in [0, 1]"
        )
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes only now
        raise InputError(f"image: cannot be decoded ({error}); download or export it again") from error


def to_rgb(image: Image.Image, size: Optional[tuple[int, int]] = None) -> np.ndarray:
    """An upright image of 8 bits a channel as uint8 (H, W, 3); alpha is dropped, not composited.

    With `size`, (H, W), its pixels are averaged to that.
    """
    # A palette may carry alpha that only the way through RGBA resolves quietly.
    image = image.convert("RGBA") if image.mode in ("P", "PA") else image
    image = image if image.mode == "RGB" else image.convert("RGB")
    if size is not None and size != image.size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.array(image)


def from_array(array: np.ndarray) -> np.ndarray:
    """An array as uint8 (H, W, 3), RGB in [0, 255].

    Args:
        array: (H, W, 3), or grey as (H, W) or (H, W, 1); uint8, or floats in [0, 1], which are rounded to 8 bits, as
            files have them

    Raises:
        InputError: it has another shape or type, no pixel, too many, masked ones, or a value outside [0, 1].
    """
    if np.ma.is_masked(array):
        raise InputError("image: a masked array; give what is masked a value, by its method filled()")
    array = np.asarray(array)  # no matrix
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (grey or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise InputError(f"image: an array of shape {array.shape}; give (H, W, 3) in RGB, or grey (H, W)")
    check_size("image", array.shape[1], array.shape[0])
    if array.dtype.kind == "f":
        if not ((array >= 0) & (array <= 1)).all():
            raise InputError(
                f"image: floats from {array.min():.9g} to {array.max():.9g}; scale them to [0, 1], or give uint8"
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"image: an array of {array.dtype}; give uint8, or floats in [0, 1]")
    return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2) if grey else array.copy()
