"""Images as the network takes them: square, and in [0, 1]."""

from __future__ import annotations

import numpy as np
from PIL import Image


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to uint8 (size, size, 3) with Pillow's antialiased bilinear filter."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def to_input(pixels: np.ndarray) -> np.ndarray:
    """Uint8 or uint16 (S, S, C), 255 or 65535 being 1, as float32 (C, S, S) in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(np.iinfo(pixels.dtype).max)
