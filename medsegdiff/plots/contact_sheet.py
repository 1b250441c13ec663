"""Many small images with the outlines of their masks, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medsegdiff.plots.overlay import draw_outline
from medsegdiff.plots.palette import TRUTH_COLOUR

_SIDE, _GAP, _LINE = 176, 8, 14  # pixels: of an image, between two, of a line of text
_FLAG = (213, 94, 0)  # vermilion (Okabe and Ito 2008)
_LETTERS = 28  # that fit below an image


class Tile(NamedTuple):
    """An image on the sheet."""

    image: np.ndarray
    """uint8 (H, W, 3)"""
    mask: Optional[np.ndarray]
    """bool (H, W)"""
    id: str
    flag: str = ""
    """What is wrong with it, if anything."""


def contact_sheet(tiles: Sequence[Tile], columns: int = 6) -> np.ndarray:
    """Draw the images side by side, what is flagged in a frame; uint8 (H, W, 3)."""
    rows, columns = -(-len(tiles) // columns), min(columns, len(tiles))
    width, height = _SIDE + _GAP, _SIDE + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for place, tile in enumerate(tiles):
        x, y = _GAP + place % columns * width, _GAP + place // columns * height
        small = _fitted(tile)
        sheet.paste(small, (x + (_SIDE - small.width) // 2, y + (_SIDE - small.height) // 2))
        draw.text((x, y + _SIDE + 1), _short(tile.id), "black", font)
        if tile.flag:
            draw.rectangle((x - 3, y - 3, x + _SIDE + 2, y + _SIDE + 2), outline=_FLAG, width=3)
            draw.text((x, y + _SIDE + _LINE), _short(tile.flag), _FLAG, font)
    return np.asarray(sheet)


def _fitted(tile: Tile) -> Image.Image:
    """The image at the sheet's size, with the outline."""
    height, width = tile.image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(tile.image).resize(size, Image.Resampling.BILINEAR)
    if tile.mask is None:
        return picture
    mask = np.asarray(Image.fromarray(tile.mask).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(draw_outline(np.asarray(picture), mask, TRUTH_COLOUR, 0))


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS // 2 - 1]}…{text[-_LETTERS // 2 :]}"
