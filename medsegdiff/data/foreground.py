"""The masks' share of foreground, and which shares are unlikely."""

from __future__ import annotations

import numpy as np

_MOST = 0.75  # of all pixels
_CORNERS = 0.5  # of the masks


def describe(shares: np.ndarray) -> list[str]:
    """A line on each foreground class, from its share in each mask, float (N, classes)."""
    lines = []
    for label, of_images in enumerate(shares.T, start=1):
        name = "foreground" if shares.shape[1] == 1 else f"class {label}"
        empty = np.count_nonzero(of_images == 0)
        lines.append(
            f"{name}: {of_images.mean():.1%} of the pixels, {of_images.min():.1%} to {of_images.max():.1%} of a mask; "
            f"{empty} of {len(of_images)} masks have none"
        )
    return lines


def warnings(shares: np.ndarray, corners: np.ndarray) -> list[str]:
    """A line for each thing that is unlikely: masks that are inverted or have no foreground.

    Args:
        shares: the share of each foreground class in each mask, float (N, classes)
        corners: whether all four corners of each mask are foreground, bool (N,)
    """
    total = shares.sum(axis=1)
    if not total.any():
        return ["all masks are empty: nothing can be learnt from them; check that these are the masks"]
    lines = [
        f"class {label} occurs in no mask, and counts in no mean; check the number of classes, and the labels"
        for label in np.flatnonzero(~shares.any(axis=0)) + 1
    ]
    if total.mean() > _MOST or corners.mean() > _CORNERS:
        lines.append(
            f"{total.mean():.1%} of the masks' pixels are foreground, of {corners.mean():.0%} of the masks all four "
            "corners: are they inverted? Foreground is the lighter of two values, and of more what is above one half"
        )
    return lines
