"""What share of the masks is foreground, and what of it is unlikely."""

from __future__ import annotations

import numpy as np

_MOST = 0.75  # of all pixels
_CORNERS = 0.5  # of the masks


def shares(masks: np.ndarray, num_classes: int = 2) -> np.ndarray:
    """The share of each foreground class in each mask: class indices (N, S, S) to float64 (N, num_classes - 1)."""
    counts = [np.bincount(mask.ravel(), minlength=num_classes)[1:num_classes] for mask in masks]
    return np.array(counts) / masks[0].size


def describe(masks: np.ndarray, num_classes: int = 2) -> list[str]:
    """A line on each foreground class of the masks, as `shares` takes them."""
    lines = []
    for label, of_images in enumerate(shares(masks, num_classes).T, start=1):
        name = "foreground" if num_classes == 2 else f"class {label}"
        empty = np.count_nonzero(of_images == 0)
        lines.append(
            f"{name}: {of_images.mean():.1%} of the pixels, {of_images.min():.1%} to {of_images.max():.1%} of a mask; "
            f"{empty} of {len(of_images)} masks have none"
        )
    return lines


def warnings(masks: np.ndarray, num_classes: int = 2) -> list[str]:
    """What is unlikely of the masks, as `shares` takes them, a line each: inverted or without foreground."""
    by_class = shares(masks, num_classes)
    total = by_class.sum(axis=1)
    if not total.any():
        return ["all masks are empty: nothing can be learnt from them; check that these are the masks"]
    lines = []
    for label in np.flatnonzero(~by_class.any(axis=0)) + 1:
        lines.append(f"class {label} occurs in no mask; check the number of classes")
    corners = np.mean([(mask[[0, 0, -1, -1], [0, -1, 0, -1]] > 0).all() for mask in masks])
    if total.mean() > _MOST or corners > _CORNERS:
        lines.append(
            f"{total.mean():.1%} of the masks' pixels are foreground, of {corners:.0%} of the masks all four corners: "
            "are they inverted? Foreground is the lighter of two values, and of more what is above one half"
        )
    return lines
