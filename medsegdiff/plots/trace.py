"""The steps from noise to mask, as an animation and as a strip of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from medsegdiff.base.files import replacing
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.plots.overlay import overlay

_PANEL = 256  # side of a panel in pixels
_STRIP = 10  # steps shown in the strip
_GAP = 8
_STEP_MS, _END_MS = 120, 2000
_SIGMAS = 3  # noise up to so many standard deviations is shown


class Frame(NamedTuple):
    """A sampler's state after a step; float (M, S, S) each."""

    x: np.ndarray
    """The mask with the noise that is left."""
    x0: np.ndarray
    """The clean mask predicted at this step."""


def write_trace(out: Path, id: str, image: np.ndarray, frames: Sequence[Frame]) -> None:
    """Write `ID_trace.gif` and the strip `ID_trace.png` of an image, float (C, S, S) in [0, 1], into the folder `out`.

    Each moment has the image with the outline of the mask so far, the noisy mask, and the predicted clean
    mask; of several classes the largest value is shown. The strip has them one below the other, up to
    ten moments from left to right.

    Raises:
        InputError: the disk refuses.
    """
    picture = _enlarged(_rgb(image), Image.Resampling.BICUBIC)
    moments = [_moment(picture, frame) for frame in frames]
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(_STRIP, len(moments))).round().astype(int))
    strip = np.concatenate([np.concatenate(moments[index], axis=0) for index in chosen], axis=1)
    with replacing(out / f"{id}_trace.png") as beside:
        Image.fromarray(strip).save(beside, format="PNG")
    first, *rest = [Image.fromarray(np.concatenate(panels, axis=1)) for panels in moments]
    lasting = [_STEP_MS] * len(rest) + [_END_MS]
    with replacing(out / f"{id}_trace.gif") as beside:
        first.save(beside, format="GIF", save_all=True, append_images=rest, duration=lasting, loop=0)


def _moment(picture: np.ndarray, frame: Frame) -> list[np.ndarray]:
    x, x0 = frame.x.max(axis=0), np.clip(frame.x0.max(axis=0), 0, 1)
    mask = np.asarray(Image.fromarray(x0.astype(np.float32)).resize((_PANEL, _PANEL), Image.Resampling.BILINEAR))
    noisy = np.clip((x + _SIGMAS) / (2 * _SIGMAS), 0, 1)
    greys = [np.round(255 * values).astype(np.uint8) for values in (noisy, x0)]
    panels = [overlay(picture, np.where(mask > THRESHOLD, 1.0, 0.0))]
    panels += [_enlarged(np.repeat(grey[..., None], 3, axis=2), Image.Resampling.NEAREST) for grey in greys]
    return [np.pad(panel, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for panel in panels]


def _rgb(image: np.ndarray) -> np.ndarray:
    """Float (C, S, S) as uint8 (S, S, 3); of images that are not RGB, the first channel as grey."""
    colours = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8).transpose(1, 2, 0)


def _enlarged(picture: np.ndarray, method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((_PANEL, _PANEL), method))
