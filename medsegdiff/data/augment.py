"""Random variants of an image with its mask: flips, turns, warps, colours, hairs, stickers."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# What strength 1 adds, at most: the zoom's factor, the shift as a share of the side, degrees, the standard deviation
# of the elastic displacements as a share of the side, the turn of the hue in degrees, the colour change.
_ZOOM, _SHIFT, _DEGREES, _ELASTIC, _HUE, _COLOUR = 1.4, 0.15, 30.0, 0.03, 15.0, 0.15
_CONTROL = 5  # random displacements along each side; between them the deformation is smooth


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    flips: bool = True,
    rotations: bool = True,
    colour: float = 0.1,
    strength: float = 0.0,
    hair: float = 0.0,
    stickers: float = 0.0,
    rgb: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one variant of a sample from `rng`; the arguments stay as they are.

    Args:
        image: float32 (C, S, S) in [0, 1], RGB or other channels.
        mask: float32 (M, S, S) of 0 and 1, at most one class a pixel; what moves the image moves it, too.
        rng: the sample's random stream.
        flips: mirror left-right and top-bottom, each in half of all cases.
        rotations: turn by 0, 90, 180 or 270 degrees.
        colour: largest relative change of brightness, contrast and saturation; 0 leaves the colours alone.
        strength: how much is added, from 0, nothing, to 1: zoom by up to 1.4 in or out, shift by up to 15 % of the
            side, rotation by up to 30 degrees, elastic deformation, a turn of the hue by up to 15 degrees, and
            0.15 more of `colour`. What comes in from outside is the mirrored image.
        hair: in which share of all cases hairs are drawn over the image.
        stickers: in which share of all cases a coloured disc reaches in from an edge, as colour charts in dermoscopy
            do; there is no mask below it.
        rgb: whether the channels are red, green and blue. Of others brightness and contrast change, of each by itself.

    Returns:
        The image, float32 (C, S, S) in [0, 1], and the mask, float32 (M, S, S) of 0 and 1.
    """
    for axis in (1, 2) if flips else ():
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    if rotations:
        turns = int(rng.integers(4))
        image, mask = np.rot90(image, turns, (1, 2)), np.rot90(mask, turns, (1, 2))
    image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
    if strength > 0:
        image, mask = _warp(image, mask, _sources(image.shape[1], strength, rng))
    if hair > 0 and rng.random() < hair:
        image = _hairy(image, rng)
    if stickers > 0 and rng.random() < stickers:
        image, mask = _sticker(image, mask, rng)
    colour += _COLOUR * strength
    if colour > 0 and rgb:
        image = _jitter(image, rng.uniform(1 - colour, 1 + colour, 3).astype(np.float32))
    elif colour > 0:
        image = _jitter_channels(image, rng.uniform(1 - colour, 1 + colour, (2, len(image))).astype(np.float32))
    if strength > 0 and rgb:
        image = _turn_hue(image, np.deg2rad(rng.uniform(-1, 1) * _HUE * strength))
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(mask, np.float32)


def _sources(size: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(2, S, S) float32: row and column, in pixels, from which each pixel of a variant is taken.

    A similarity, and smooth random displacements (elastic deformation: Simard et al. 2003).
    """
    zoom = _ZOOM ** (strength * rng.uniform(-1, 1))
    angle = np.deg2rad(strength * _DEGREES * rng.uniform(-1, 1))
    shift = strength * _SHIFT * size * rng.uniform(-1, 1, 2)
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    # Both are sums of products of what depends on the row and what depends on the column.
    weights = np.zeros((2, _CONTROL + 2, _CONTROL + 2), np.float32)
    weights[:, :_CONTROL, :_CONTROL] = rng.normal(0, strength * _ELASTIC * size, (2, _CONTROL, _CONTROL))
    weights[:, -2, -1] = cos, sin
    weights[:, -1, -2] = -sin, cos
    weights[:, -1, -1] = (size - 1) / 2 + shift
    basis = _basis(size)
    return basis @ weights @ basis.T


@lru_cache(maxsize=4)
def _basis(size: int) -> np.ndarray:
    """(S, _CONTROL + 2) float32: bicubic weights of the control points, the place from the middle on, and 1."""
    points = Image.fromarray(np.eye(_CONTROL, dtype=np.float32)).resize((_CONTROL, size), Image.Resampling.BICUBIC)
    centred = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.column_stack([np.asarray(points), centred, np.ones_like(centred)])


def _warp(image: np.ndarray, mask: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image, interpolated bilinearly at `sources`, and the mask: the class that weighs most there.

    A class must weigh more than the background, so masks neither grow nor shrink, however they were resized.
    """
    size = image.shape[1]
    mirrored = size - np.abs(size - np.abs(sources + 0.5)) - 0.5  # at the outer edges of the outermost pixels
    inside = np.maximum(np.minimum(mirrored, size - 1), 0)
    low = np.floor(np.minimum(inside, size - 2))
    down, right = (inside - low).reshape(2, -1)
    corner = (low[0] * size + low[1]).astype(np.intp).ravel()  # exact: float32 has all whole numbers to 4096 squared
    flat = np.concatenate([image, mask]).reshape(-1, size * size)
    above, above_right, below, below_right = (flat.take(corner + step, axis=1) for step in (0, 1, size, size + 1))
    for near, far, share in ((above, above_right, right), (below, below_right, right), (above, below, down)):
        far -= near
        far *= share
        near += far
    warped = above.reshape(-1, size, size)
    return warped[: len(image)], _heaviest(warped[len(image) :])


def _heaviest(classes: np.ndarray) -> np.ndarray:
    """Shares of the foreground classes (M, S, S) to bool: the class that has most of a pixel, if not the background."""
    most = 1 - classes.sum(axis=0)
    found = np.empty(classes.shape, bool)
    for place, share in enumerate(classes):
        np.greater(share, most, out=found[place])
        found[:place] &= ~found[place]
        np.maximum(most, share, out=most)
    return found


def _hairy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image under a few thin dark arcs that cross it."""
    size, fine = image.shape[1], 4  # drawn at four times the size, and shrunk: hairs are thinner than a pixel
    canvas = Image.new("L", (size * fine, size * fine))
    draw = ImageDraw.Draw(canvas)
    t = np.linspace(0, 1, 9)[:, None]
    for _ in range(int(rng.integers(2, 13))):
        start, end = rng.uniform(-0.2, 1.2, (2, 2))
        bend = (start + end) / 2 + rng.normal(0, 0.15, 2)
        curve = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end) * size * fine
        width = max(1, round(size * fine * rng.uniform(1, 3) / 256))
        draw.line([tuple(point) for point in curve], fill=255, width=width)
    cover = np.asarray(canvas.reduce(fine), np.float32) / 255 * np.float32(rng.uniform(0.5, 0.95))
    tone = (rng.uniform(0.02, 0.3) * np.array([1, 0.8, 0.65])).astype(np.float32)  # black to brown
    return image * (1 - cover) + tone[:, None, None] * cover


def _sticker(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image under a disc of one colour, or of two, around a point near the middle of an edge."""
    size = image.shape[1]
    centre = np.array([rng.uniform(0.2, 0.8), rng.uniform(-0.15, 0.15)])
    if rng.random() < 0.5:
        centre = 1 - centre  # from the right
    if rng.random() < 0.5:
        centre = centre[::-1]  # from the top or the bottom
    places = (np.arange(size, dtype=np.float32) + 0.5) / size - centre[:, None].astype(np.float32)
    distance = np.hypot(places[0][:, None], places[1])
    for radius in rng.uniform(0.12, 0.35) * np.array([1, 0.55])[: 1 + (rng.random() < 0.3)]:
        colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1), rng.uniform(0.4, 1))
        cover = np.clip((radius - distance) * size + 0.5, 0, 1).astype(np.float32)
        image = image * (1 - cover) + np.array(colour, np.float32)[:, None, None] * cover
        mask = mask * (cover < 0.5)
    return image, mask


def _jitter(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Scale brightness, then contrast about the mean, then saturation about each pixel's grey."""
    brightness, contrast, saturation = factors
    middle = brightness * (_LUMINANCE @ image.mean(axis=(1, 2)))
    mixed = brightness * contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMINANCE)
    return _recoloured(image, mixed, (1 - contrast) * middle)


def _jitter_channels(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Scale the brightness of each channel, then its contrast about its mean."""
    brightness, contrast = factors[..., None, None]
    image = image * brightness
    middle = image.mean(axis=(1, 2), keepdims=True)
    return np.clip(middle + contrast * (image - middle), 0, 1)


def _turn_hue(image: np.ndarray, angle: float) -> np.ndarray:
    """Turn the colours about the axis of greys, by Rodrigues' formula; greys stay as they are."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
    return _recoloured(image, turn.astype(np.float32))


def _recoloured(image: np.ndarray, mixed: np.ndarray, offset: float = 0) -> np.ndarray:
    """Each pixel's colour times a matrix (3, 3), and `offset`; what leaves [0, 1] is cut off."""
    found = np.einsum("ij,jyx->iyx", mixed, image)  # not a BLAS, whose threads wait for each other on a busy machine
    if offset:
        found += offset
    return np.minimum(np.maximum(found, 0, out=found), 1, out=found)
