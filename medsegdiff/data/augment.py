"""Random flips, right-angle turns and colour changes of an image with its mask."""

from __future__ import annotations

import numpy as np

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    flips: bool = True,
    rotations: bool = True,
    colour: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one variant of a sample from `rng`; the arguments stay as they are.

    Args:
        image: float32 (3, S, S), RGB in [0, 1].
        mask: float32 (C, S, S); it gets the same flips and turns, and no colour change.
        rng: the sample's random stream.
        flips: mirror left-right and top-bottom, each in half of all cases.
        rotations: turn by 0, 90, 180 or 270 degrees.
        colour: largest relative change of brightness, contrast and saturation; 0 leaves the colours alone.

    Returns:
        The image, float32 (3, S, S) in [0, 1], and the mask, float32 (C, S, S).
    """
    for axis in (1, 2) if flips else ():
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    if rotations:
        turns = int(rng.integers(4))
        image, mask = np.rot90(image, turns, (1, 2)), np.rot90(mask, turns, (1, 2))
    if colour > 0:
        image = _jitter(image, rng.uniform(1 - colour, 1 + colour, 3).astype(np.float32))
    return np.array(image, np.float32, order="C"), np.array(mask, np.float32, order="C")


def _jitter(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Scale brightness, then contrast about the mean, then saturation about each pixel's grey."""
    brightness, contrast, saturation = factors
    image = image * brightness
    middle = np.tensordot(_LUMINANCE, image, 1).mean()
    image = middle + contrast * (image - middle)
    grey = np.tensordot(_LUMINANCE, image, 1)
    return np.clip(grey + saturation * (image - grey), 0, 1)
