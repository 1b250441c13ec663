"""An image, its mask's outline and the uncertainty side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medsegdiff.masks.resizing import resize_probability, shrunk
from medsegdiff.plots.overlay import overlay

_LONGEST = 384  # pixels of a panel's longer side
_GAP = 8


def panels(image: np.ndarray, probability: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Draw the three in a row, shrunk to the size of a screen.

    Args:
        image: uint8 (H, W, 3)
        probability: float (H, W) in [0, 1]; the mask is where it exceeds one half
        std: standard deviation over the members (H, W)

    Returns:
        uint8 (h, w, 3)
    """
    size = shrunk(image.shape[:2], _LONGEST)
    small = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    drawn = overlay(small, resize_probability(probability, size), None, resize_probability(std, size))
    return np.concatenate([small, np.full((size[0], _GAP, 3), 255, np.uint8), drawn], axis=1)
