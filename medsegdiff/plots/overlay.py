"""Contours over an image.

matplotlib and SciPy are imported inside: they take most of a second, which other commands need not wait.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.plots.palette import HEAT, MAX_STD, PREDICTION_COLOUR, TRUTH_COLOUR


def overlay(
    image: np.ndarray,
    probability: np.ndarray,
    truth: np.ndarray | None = None,
    std: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the outline of the prediction (blue) and of the ground truth (yellow) over the image.

    Args:
        image: uint8 (H, W, 3).
        probability: float (H, W) in [0, 1]; its mask is where it exceeds one half.
        truth: bool (H, W), or none.
        std: standard deviation over the ensemble (H, W); it adds a panel to the right, black (0) over
            purple and orange to light yellow (`MAX_STD`).

    Returns:
        uint8 (H, W, 3), or (H, 2 W + a white gap, 3) with `std`.
    """
    width = round(max(image.shape[:2]) / 600)
    picture = image.astype(np.float32)
    if truth is not None:  # the wider line, below: where the outlines coincide both are seen
        picture = draw_outline(picture, truth, TRUTH_COLOUR, width + 1)
    picture = draw_outline(picture, probability > THRESHOLD, PREDICTION_COLOUR, width // 2)
    picture = np.round(picture).astype(np.uint8)
    if std is None:
        return picture

    from matplotlib import colormaps

    heat = colormaps[HEAT](np.clip(std / MAX_STD, 0, 1), bytes=True)[..., :3]
    gap = np.full((len(picture), 4 * (width + 1), 3), 255, dtype=np.uint8)
    return np.concatenate([picture, gap, heat], axis=1)


def draw_outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], width: int) -> np.ndarray:
    """Blend the outline of `mask` into float32 (H, W, 3), with a shadow that sets it off from light skin."""
    from scipy.ndimage import binary_erosion

    edge = mask & ~binary_erosion(mask)  # outside the picture is background: a mask cut by it is closed there
    for paint, reach, strength in (((0, 0, 0), width + 1, 0.4), (colour, width, 1)):
        opacity = strength * _softened(_dilated(edge, reach))[..., None]
        picture = picture * (1 - opacity) + np.array(paint, dtype=np.float32) * opacity
    return picture


def _softened(line: np.ndarray) -> np.ndarray:
    """A boolean line as opacity in [0, 1], its staircase smoothed."""
    grey = Image.fromarray(line.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.6))
    return np.minimum(np.asarray(grey, dtype=np.float32) / 160, 1)  # a line one pixel wide stays bright


def _dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    """Grow by `steps` pixels; crosses and squares in turn make it an octagon, nearly a disc."""
    from scipy import ndimage

    for step in range(steps):
        mask = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(2, 1 + step % 2))
    return mask
