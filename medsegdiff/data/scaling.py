"""From the intensities of files to [0, 1].

* "8-bit": 0 to 255 are 0 to 1.
* "LO..HI": a window, the same for all images: a bit depth, or CT numbers; what is outside is cut off.
* "z-score": of each volume and channel, mean - 4 standard deviations to mean + 4, of the voxels that are not 0.
* "percentile": of each volume and channel, from 0.5 % to 99.5 % of the voxels that are not 0.
"""

from __future__ import annotations

import re
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError

EIGHT_BITS, Z_SCORE, PERCENTILE = "8-bit", "z-score", "percentile"
_NUMBER = r"-?\d+(?:\.\d+)?"
_WINDOW = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_DEVIATIONS = 4.0
_PERCENTILES = (0.5, 99.5)
_SIXTEEN_BITS = 65535


def window(low: float, high: float) -> str:
    """The name of the scaling by a window."""
    return f"{low:g}..{high:g}"


def check_scaling(scaling: str) -> None:
    """Refuse what is no scaling.

    Raises:
        InputError: it is none.
    """
    bounds = bounds_of(scaling)
    if scaling not in (EIGHT_BITS, Z_SCORE, PERCENTILE) and not (bounds and bounds[0] < bounds[1]):
        raise InputError(
            f"`scaling` {scaling}: must be {EIGHT_BITS}, {Z_SCORE}, {PERCENTILE} or a window, as -160..240"
        )


def bounds_of(scaling: str) -> Optional[tuple[float, float]]:
    """What becomes 0 and 1 in all images; None where that is found out of each."""
    found = _WINDOW.fullmatch(scaling)
    return (float(found[1]), float(found[2])) if found else None


def scale(values: np.ndarray, scaling: str) -> np.ndarray:
    """Intensities of one image or volume, (..., C), as float32 in [0, 1]; what is not a number is 0."""
    if scaling == EIGHT_BITS:
        return np.clip(values, 0, 255).astype(np.float32) / np.float32(255)
    found = np.empty(values.shape, np.float32)
    for channel in range(values.shape[-1]):
        layer = values[..., channel].astype(np.float32)
        low, high = bounds_of(scaling) or _own_bounds(layer, scaling)
        scaled = (layer - np.float32(low)) / np.float32(max(high - low, 1e-6))
        found[..., channel] = np.clip(np.nan_to_num(scaled, nan=0, posinf=1, neginf=0), 0, 1)
    return found


def _own_bounds(layer: np.ndarray, scaling: str) -> tuple[float, float]:
    """What becomes 0 and 1 of one channel."""
    seen = layer[np.isfinite(layer) & (layer != 0)]
    if not seen.size:
        return 0.0, 1.0
    if scaling == PERCENTILE:
        low, high = np.percentile(seen, _PERCENTILES)
        return float(low), float(high)
    mean, reach = float(seen.mean(dtype=np.float64)), _DEVIATIONS * float(seen.std(dtype=np.float64))
    return (mean - reach, mean + reach) if reach else (mean - 0.5, mean + 0.5)


def to_sixteen_bits(scaled: np.ndarray) -> np.ndarray:
    """[0, 1] as uint16, which the cache keeps."""
    return np.rint(scaled * _SIXTEEN_BITS).astype(np.uint16)
