"""How far the outlines of two masks are apart, and how many lesions were found: in two or three dimensions.

A mask's surface is made of its pixels with a neighbour across a side outside it; beyond the picture all is outside.
Distances are between pixel centres, in the units of `spacing`. Definitions as in Metrics Reloaded (Maier-Hein et al.,
Nature Methods 2024), lesions as in ISLES (Hernandez Petzsche et al., Scientific Data 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Optional

import numpy as np

Empty = Literal["skip", "one", "zero"]
_ROUNDING = 1e-6  # of distances: files hold spacings as float32, and five pixels of 0.2 mm are as far as a millimetre

EMPTY_CONVENTION = (
    "prediction and ground truth both empty: best (score 1, distance 0) with 'one', worst with 'zero', not counted "
    "with 'skip'; only one of them empty: worst (score 0, distance the image's diagonal), whatever is chosen"
)


class Surface(NamedTuple):
    """Agreement of two masks' surfaces, lesions and volumes."""

    hd95: float
    """The 95th percentile of the distances from one surface to the other, the larger of both directions; from 0."""
    assd: float
    """Average symmetric surface distance: the mean of all pixels of both surfaces to the other surface; from 0."""
    nsd: float
    """Normalised surface Dice: the share of both surfaces that is within the tolerance of the other one; 0 to 1."""
    lesion_f1: float
    """2 TP / (2 TP + FP + FN): true lesions that the prediction meets, predicted ones that meet none, missed ones."""
    volume_difference: float
    """|predicted - true| volume, or area of two-dimensional masks, in the units of `spacing`; from 0."""


def surface(
    prediction: np.ndarray,
    target: np.ndarray,
    spacing: Optional[Sequence[float]] = None,
    tolerance: float = 1.0,
    empty: Empty = "one",
) -> Optional[Surface]:
    """Compare two boolean masks (H, W) or (D, H, W); None where nothing is counted, see `EMPTY_CONVENTION`.

    Lesions are regions whose pixels touch at sides, edges or corners.

    Args:
        prediction: the predicted mask.
        target: the ground truth.
        spacing: distance of neighbouring pixels along each axis, such as millimetres; None: 1, that is pixels.
        tolerance: of the surface Dice, in the same units.
        empty: what counts where both are empty.

    Raises:
        ValueError: the shapes differ, a mask is not boolean, or the spacing is not a positive number for each axis.
    """
    if prediction.shape != target.shape or prediction.dtype != bool or target.dtype != bool:
        raise ValueError(
            f"masks must be boolean and of one shape, not {prediction.dtype} {prediction.shape}, "
            f"{target.dtype} {target.shape}"
        )
    step = np.ones(target.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if step.shape != (target.ndim,) or not (np.isfinite(step) & (step > 0)).all():
        raise ValueError(f"spacing {spacing}: must be {target.ndim} positive numbers")
    volumes = [int(np.count_nonzero(mask)) for mask in (prediction, target)]
    difference = abs(volumes[0] - volumes[1]) * float(step.prod())
    if not all(volumes):
        if not any(volumes) and empty != "zero":
            return Surface(0.0, 0.0, 1.0, 1.0, difference) if empty == "one" else None
        diagonal = float(np.linalg.norm(step * target.shape))
        return Surface(diagonal, diagonal, 0.0, 0.0, difference)

    from scipy import ndimage
    from scipy.spatial import cKDTree

    # Outside of the box around both there is nothing, and that is most of a picture.
    inside = ndimage.find_objects((prediction | target).astype(np.uint8))[0]
    prediction, target = prediction[inside], target[inside]
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, target)]
    # From 1, not 0: the tree splits just above a coordinate, and where subnormal numbers are zero, as Jittor makes them
    # for its threads, nothing is just above 0.
    points = [(np.argwhere(border) + 1) * step for border in borders]
    there, back = (cKDTree(points[1 - i]).query(points[i])[0] for i in range(2))
    both = np.concatenate([there, back])
    return Surface(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        nsd=float(np.mean(both <= tolerance * (1 + _ROUNDING))),
        lesion_f1=_lesion_f1(prediction, target),
        volume_difference=difference,
    )


def _lesion_f1(prediction: np.ndarray, target: np.ndarray) -> float:
    from scipy.ndimage import label

    corners = np.ones((3,) * target.ndim)
    (predicted, predictions), (true, truths) = label(prediction, corners), label(target, corners)
    found = len(np.unique(true[prediction & target]))
    false = predictions - len(np.unique(predicted[prediction & target]))
    return 2 * found / (found + truths + false)  # TP + FN are all true lesions
