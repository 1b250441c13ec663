"""The connected regions of a mask."""

from __future__ import annotations

import numpy as np


def one_region_each(labels: np.ndarray) -> np.ndarray:
    """Of each class only its largest region, with its holes filled: uint8 (H, W) or (X, Y, Z) to the same.

    Pixels of a region touch at sides or corners; of regions of one size the first by rows is kept. A hole is what its
    class cuts off from the border, sides alone counting. Only background is filled, by the class that surrounds it most
    closely: other classes inside stay.
    """
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        regions = _regions(labels == label, corners=True)
        kept[regions == 1 + np.bincount(regions.ravel())[1:].argmax()] = label
    filled = {label: ~_outside(kept == label) for label in np.unique(kept[kept > 0])}
    result = kept.copy()
    for label, inside in sorted(filled.items(), key=lambda item: -np.count_nonzero(item[1])):
        result[inside & (kept == 0)] = label
    return result


def _regions(mask: np.ndarray, corners: bool) -> np.ndarray:
    """The number, from 1 on, of the region of each pixel of `mask`, bool (H, W); 0 elsewhere."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    return SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(image, corners))


def _outside(mask: np.ndarray) -> np.ndarray:
    """The pixels that are connected with the outside of the picture without crossing `mask`, bool (H, W)."""
    regions = _regions(np.pad(~mask, 1, constant_values=True), corners=False)
    return (regions == regions.flat[0])[(slice(1, -1),) * mask.ndim]
