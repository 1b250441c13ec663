"""Agreement between a predicted mask and the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PUBLISHED_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)

EMPTY_CONVENTION = (
    "prediction and ground truth both empty: Dice, IoU, precision and recall are 1; "
    "only the ground truth empty: recall 1, the others 0; only the prediction empty: all 0"
)


class Overlap(NamedTuple):
    """Overlap of two binary masks, each value in [0, 1]."""

    dice: float
    iou: float
    precision: float
    recall: float


def overlap(prediction: np.ndarray, target: np.ndarray) -> Overlap:
    """Dice, IoU, precision and recall of two boolean masks of one shape; empty masks as `EMPTY_CONVENTION`.

    With I the size of the intersection, P of the prediction and T of the ground truth: Dice 2I/(P + T)
    (Dice 1945), IoU I/(P + T - I) (Jaccard 1912), precision I/P, recall I/T.

    Raises:
        ValueError: the shapes differ or a mask is not boolean.
    """
    _same_shape(prediction, target)
    if prediction.dtype != bool or target.dtype != bool:
        raise ValueError(f"masks must be boolean, not {prediction.dtype} and {target.dtype}")
    both = int(np.count_nonzero(prediction & target))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(target))
    if not true:
        found_nothing = float(not predicted)
        return Overlap(dice=found_nothing, iou=found_nothing, precision=found_nothing, recall=1.0)
    return Overlap(
        dice=2 * both / (predicted + true),
        iou=both / (predicted + true - both),
        precision=both / predicted if predicted else 0.0,
        recall=both / true,
    )


def published_iou_dice(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """IoU and Dice of one image as the published MedSegDiff evaluation computes them.

    Both arrays hold probabilities in [0, 1] and are cut with `>` at each of `PUBLISHED_THRESHOLDS`; the
    scores (I + 1e-6)/(U + 1e-6) and (2 I + 1e-4)/(P + T + 1e-4) are averaged over the thresholds.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(prediction, target)
    ious, dices = [], []
    for threshold in PUBLISHED_THRESHOLDS:
        predicted, true = prediction > threshold, target > threshold
        both = np.count_nonzero(predicted & true)
        total = np.count_nonzero(predicted) + np.count_nonzero(true)
        ious.append((both + 1e-6) / (total - both + 1e-6))
        dices.append((2 * both + 1e-4) / (total + 1e-4))
    return float(np.mean(ious)), float(np.mean(dices))


def _same_shape(prediction: np.ndarray, target: np.ndarray) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"a prediction of shape {prediction.shape} cannot be compared with {target.shape}")
