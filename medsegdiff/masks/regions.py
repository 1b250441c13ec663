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

    kept, filled = np.zeros_like(labels), {}
    for label, box in enumerate(ndimage.find_objects(labels) if labels.size else [], 1):
        if box is not None:  # outside of it nothing is cut off from the border
            regions, _ = ndimage.label(labels[box] == label, np.ones((3,) * labels.ndim))
            largest = regions == 1 + np.bincount(regions.ravel())[1:].argmax()
            kept[box][largest] = label
            filled[label] = box, _without_holes(largest)
    result = kept.copy()
    for label, (box, inside) in sorted(filled.items(), key=lambda item: -np.count_nonzero(item[1][1])):
        result[box][inside & (kept[box] == 0)] = label
    return result


def _without_holes(region: np.ndarray) -> np.ndarray:
    """As SciPy's `binary_fill_holes`, which goes over all pixels again and again: 12 megapixels in half the time."""
    from scipy import ndimage

    apart, count = ndimage.label(~region)
    inside = np.ones(count + 1, bool)
    for axis in range(apart.ndim):
        inside[apart.take((0, -1), axis)] = False
    inside[0] = True  # the region itself
    return inside[apart]
