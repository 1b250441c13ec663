"""Contours over an image.

matplotlib is imported inside: it takes half a second, which other commands need not wait.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.plots.palette import HEAT, MAX_STD, PREDICTION_COLOUR, TRUTH_COLOUR

_BLUR = 3  # how far a line's blur reaches, pixels


def overlay(
    image: np.ndarray, probability: np.ndarray, truth: np.ndarray | None = None, std: np.ndarray | None = None
) -> np.ndarray:
    """Draw the outline of the prediction (blue) and of the ground truth (yellow) over the image.

    Args:
        image: uint8 (H, W, 3).
        probability: float (H, W) in [0, 1], or a mask, bool (H, W); outlined is where it exceeds one half.
        truth: bool (H, W), or none.
        std: standard deviation over the ensemble (H, W); it adds a panel to the right, black (0) over
            purple and orange to light yellow (`MAX_STD`).

    Returns:
        uint8 (H, W, 3), or (H, 2 W + a white gap, 3) with `std`.
    """
    width = round(max(image.shape[:2]) / 600)
    picture = image
    if truth is not None:  # the wider line, below: where the outlines coincide both are seen
        picture = draw_outline(picture, truth, TRUTH_COLOUR, width + 1)
    picture = draw_outline(picture, probability > THRESHOLD, PREDICTION_COLOUR, width // 2)
    if std is None:
        return picture

    from matplotlib import colormaps

    steps = np.arange(256, dtype=np.uint8)
    heat = colormaps[HEAT](steps, bytes=True)[:, :3][np.clip(std * (256 / MAX_STD), 0, 255).astype(np.uint8)]
    gap = np.full((len(picture), 4 * (width + 1), 3), 255, dtype=np.uint8)
    return np.concatenate([picture, gap, heat], axis=1)


def draw_outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], width: int) -> np.ndarray:
    """Blend the outline of `mask` into uint8 (H, W, 3), with a shadow that sets it off from light skin."""
    rows, columns = np.nonzero(_edge(mask))
    picture = picture.copy()
    if not len(rows):
        return picture
    # Of a large picture only the part around the outline, and of that only what the outline covers, is touched.
    margin = width + 1 + _BLUR
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    part = picture[top : rows.max() + margin + 1, left : columns.max() + margin + 1]
    lines = [
        (paint, strength * _softened(_line(rows - top, columns - left, part.shape[:2], reach)))
        for paint, reach, strength in (((0, 0, 0), width + 1, 0.4), (colour, width, 1))
    ]
    covered = lines[0][1] > 0  # by the wider one
    pixels = part[covered].astype(np.float32)
    for paint, opacity in lines:
        share = opacity[covered][:, None]
        pixels = pixels * (1 - share) + np.array(paint, dtype=np.float32) * share
    part[covered] = np.round(pixels).astype(np.uint8)
    return picture


def _edge(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask beside its background; outside the picture is background: a mask cut by it is closed there."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _softened(line: np.ndarray) -> np.ndarray:
    """A boolean line as opacity in [0, 1], its staircase smoothed."""
    grey = Image.fromarray(line.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.6))
    return np.minimum(np.asarray(grey, dtype=np.float32) / 160, 1)  # a line one pixel wide stays bright


def _line(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], reach: int) -> np.ndarray:
    """The pixels at `rows` and `columns`, grown by `reach`."""
    line = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=bool)
    for down, right in zip(*np.nonzero(_disc(reach))):
        line[rows + down, columns + right] = True
    return line[reach : reach + shape[0], reach : reach + shape[1]]


def _disc(reach: int) -> np.ndarray:
    """Of this radius: crosses and squares in turn make it an octagon, nearly a disc."""
    disc = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=bool)
    disc[reach, reach] = True
    for step in range(reach):
        grown = disc.copy()
        shifts = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
        for shift in shifts[: 8 if step % 2 else 4]:
            grown |= np.roll(disc, shift, axis=(0, 1))
        disc = grown
    return disc
