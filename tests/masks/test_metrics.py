from pathlib import Path

import numpy as np
import pytest

from medsegdiff.masks.metrics import EMPTY_CONVENTION, Overlap, overlap, published_iou_dice

CASE = Path(__file__).parents[1] / "parity" / "cases" / "fusion-and-metrics.npz"


def test_published_protocol_matches_the_original():
    case = np.load(CASE)
    ours = [published_iou_dice(p, t) for p, t in zip(case["pred"], case["target"])]
    np.testing.assert_allclose(ours, case["iou_dice_per_image"], atol=1e-6, rtol=0)


def test_published_protocol_by_hand():
    # Cuts 0.1 and 0.3 take both pixels of the prediction; 0.5 is not above 0.5; the ground truth has one pixel.
    iou, dice = published_iou_dice(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    assert iou == pytest.approx((2 * 1 / 2 + 3 * 0) / 5, abs=1e-5)
    assert dice == pytest.approx((2 * 2 / 3 + 3 * 0) / 5, abs=1e-4)


def test_published_protocol_calls_two_empty_masks_perfect():
    assert published_iou_dice(np.zeros((4, 4)), np.zeros((4, 4))) == (1, 1)


def test_overlap_by_hand():
    prediction = np.array([[1, 1, 1], [0, 0, 0]], bool)
    target = np.array([[0, 1, 1], [1, 1, 0]], bool)
    assert overlap(prediction, target) == Overlap(dice=4 / 7, iou=2 / 5, precision=2 / 3, recall=2 / 4)


def test_overlap_of_empty_masks_follows_the_convention():
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert overlap(empty, empty) == (1, 1, 1, 1)
    assert overlap(full, empty) == Overlap(dice=0, iou=0, precision=0, recall=1)
    assert overlap(empty, full) == (0, 0, 0, 0)
    assert "recall 1, the others 0" in EMPTY_CONVENTION


def test_unlike_arrays_are_refused():
    with pytest.raises(ValueError, match="shape"):
        overlap(np.zeros((2, 1), bool), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="shape"):
        published_iou_dice(np.zeros((2, 1)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="boolean"):
        overlap(np.zeros((2, 2)), np.zeros((2, 2), bool))
