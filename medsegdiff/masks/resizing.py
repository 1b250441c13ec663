"""Probabilities at another size."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize float (h, w) in [0, 1] to float32 `size` = (H, W): bilinear, antialiased when it shrinks."""
    image = Image.fromarray(np.asarray(probability, dtype=np.float32))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return np.clip(resized, 0, 1)  # rounding may step over the ends
