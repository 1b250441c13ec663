"""The connected regions of a mask."""

from __future__ import annotations

import numpy as np


def one_region_each(labels: np.ndarray) -> np.ndarray:
    """Of each class only its largest region, with its holes filled: uint8 (H, W) or (X, Y, Z) to the same.

    Pixels of a region touch at sides or corners; of regions of one size the first by rows is kept. A hole is what its
    class cuts off from the border, sides alone counting. Only background is filled, by the class that surrounds it most
    closely: other classes inside stay.
    """
    from scipy import ndimage

    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        regions, _ = ndimage.label(labels == label, np.ones((3,) * labels.ndim))
        kept[regions == 1 + np.bincount(regions.ravel())[1:].argmax()] = label
    filled = {label: ndimage.binary_fill_holes(kept == label) for label in np.unique(kept[kept > 0])}
    result = kept.copy()
    for label, inside in sorted(filled.items(), key=lambda item: -np.count_nonzero(item[1])):
        result[inside & (kept == 0)] = label
    return result
