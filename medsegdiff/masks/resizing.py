"""Sizes, and probabilities at another size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import numpy as np
from PIL import Image

_PIXELS = 1 << 20  # of a strip


def shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(H, W) of at most `longest` pixels, in the proportions of `size`; that itself where it is no larger."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize float (h, w) in [0, 1] to float32 `size` = (H, W): bilinear, antialiased when it shrinks."""
    image = Image.fromarray(np.asarray(probability, dtype=np.float32))
    return _resized(image, size[1], size[0])


def made_at(
    channels: np.ndarray, size: tuple[int, int], make: Callable[[np.ndarray], np.ndarray], dtype: type
) -> np.ndarray:
    """What `make` makes, pixel by pixel, of probabilities resized as by `resize_probability`.

    They are resized and given to it a strip of columns after another: at the size of a large picture they would take
    gigabytes.

    Args:
        channels: float (M, h, w) in [0, 1]
        size: (H, W)
        make: from float32 (M, H, c) to (H, c)
        dtype: of the result

    Returns:
        (H, W) of `dtype`.
    """
    made = np.empty(size, dtype)
    for columns, strip in _strips(channels, size):
        made[:, columns] = make(strip)
    return made


def _strips(channels: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    height, width = size
    if height < channels.shape[1]:  # Pillow may begin with the columns, and what is so low is not large
        yield slice(None), np.stack([resize_probability(one, size) for one in channels])
        return
    # It resizes rows first, and each column then by itself: the bits are those of the whole at once.
    wide = [Image.fromarray(np.asarray(one, dtype=np.float32)) for one in channels]
    wide = [one.resize((width, one.height), Image.Resampling.BILINEAR) for one in wide]
    step = max(1, _PIXELS // height)
    for start in range(0, width, step):
        stop = min(start + step, width)
        parts = (one.crop((start, 0, stop, one.height)) for one in wide)
        yield slice(start, stop), np.stack([_resized(part, stop - start, height) for part in parts])


def _resized(image: Image.Image, width: int, height: int) -> np.ndarray:
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return np.clip(resized, 0, 1)  # rounding may step over the ends
