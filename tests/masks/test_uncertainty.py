import itertools
import math

import numpy as np
import pytest

from medsegdiff.masks import uncertainty
from medsegdiff.masks.uncertainty import (
    PackedMasks,
    brier,
    calibration_histogram,
    entropy,
    error_retention,
    expected_calibration_error,
    generalised_energy_distance,
    pairwise_dice,
    rank_correlation,
)


@pytest.fixture
def masks():
    """Six masks of 7 x 5 pixels, which fill no whole number of bytes; two are empty."""
    random = np.random.default_rng(0)
    return [random.random((7, 5)) < density for density in (0, 0.2, 0.5, 0.8, 1, 0)]


def dice(first, second):
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else 1.0


def distance(first, second):
    union = (first | second).sum()
    return 1 - (first & second).sum() / union if union else 0.0


def test_entropy_by_hand():
    probability = np.array([[0, 1, 0.5], [0.25, 0.75, 1e-9]])
    bits = entropy(probability)
    quarter = 2 - 0.75 * math.log2(3)
    assert bits.dtype == np.float32
    np.testing.assert_allclose(bits, [[0, 0, 1], [quarter, quarter, 0]], atol=1e-6)
    assert bits.min() >= 0


def test_pairwise_dice_is_the_mean_over_pairs(masks):
    expected = np.mean([dice(*pair) for pair in itertools.combinations(masks, 2)])
    assert pairwise_dice(masks) == pytest.approx(expected)
    assert pairwise_dice(np.stack(masks)) == pairwise_dice(iter(masks)) == pairwise_dice(masks)


def test_pairwise_dice_by_hand():
    one, both, none = (np.array([pixels], bool) for pixels in ([1, 0], [1, 1], [0, 0]))
    assert pairwise_dice([one, both]) == pytest.approx(2 / 3)
    assert pairwise_dice([none, none]) == 1
    assert pairwise_dice([one, both, none]) == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_energy_distance_counts_every_ordered_pair(masks):
    truth = np.random.default_rng(1).random((7, 5)) < 0.4
    cross = np.mean([distance(member, truth) for member in masks])
    within = np.mean([distance(*pair) for pair in itertools.product(masks, repeat=2)])
    assert generalised_energy_distance(masks, truth) == pytest.approx(2 * cross - within)
    assert generalised_energy_distance(iter(masks), truth) == generalised_energy_distance(masks, truth)


def test_energy_distance_by_hand():
    left, right, none = (np.array([pixels], bool) for pixels in ([1, 0], [0, 1], [0, 0]))
    assert generalised_energy_distance([left], left) == 0
    assert generalised_energy_distance([left], right) == 2
    assert generalised_energy_distance([none, none], none) == 0
    # 2 (0 + 1)/2 less the two of four ordered pairs that differ.
    assert generalised_energy_distance([left, right], left) == pytest.approx(1 - 0.5)


def test_masks_are_counted_in_parts(monkeypatch, masks):
    whole = PackedMasks(masks).shared()
    monkeypatch.setattr(uncertainty, "_BYTES_AT_ONCE", 2)
    np.testing.assert_array_equal(PackedMasks(masks).shared(), whole)
    np.testing.assert_array_equal(whole, [[(a & b).sum() for a in masks] for b in masks])


def test_packed_masks_come_back(masks):
    packed = PackedMasks(masks)
    assert len(packed) == len(masks)
    assert all(back.dtype == bool for back in packed)
    np.testing.assert_array_equal(list(packed), masks)


def test_unlike_and_too_few_masks_are_refused(masks):
    with pytest.raises(ValueError, match="one shape"):
        pairwise_dice([masks[0], masks[1].T])
    with pytest.raises(ValueError, match="boolean"):
        generalised_energy_distance([masks[0].astype(float)], masks[0])
    with pytest.raises(ValueError, match="two masks"):
        pairwise_dice(masks[:1])
    with pytest.raises(ValueError, match="one member"):
        generalised_energy_distance([], masks[0])


def test_brier_by_hand():
    assert brier(np.array([[0.5, 1, 0.2]]), np.array([[1, 1, 0]], bool)) == pytest.approx((0.25 + 0 + 0.04) / 3)
    with pytest.raises(ValueError, match="shape"):
        brier(np.zeros((2, 1)), np.zeros((1, 2), bool))


def test_calibration_error_by_hand():
    # Bin 1 of 4 holds 0.25 and 0.4, half of them true; the last holds 1, true: 2/3 |0.325 - 0.5| + 1/3 |1 - 1|.
    histogram = calibration_histogram(np.array([[0.25, 0.4, 1]]), np.array([[0, 1, 1]], bool), bins=4)
    np.testing.assert_allclose(histogram * 3, [[0, 2, 0, 1], [0, 0.65, 0, 1], [0, 1, 0, 1]])
    assert expected_calibration_error([histogram]) == pytest.approx(2 / 3 * 0.175)


def test_calibration_error_weighs_images_alike_whatever_their_size():
    # The large image is right with certainty, the small one says 0.3 of a true pixel: half of |0.3 - 1|.
    large = calibration_histogram(np.ones((40, 40)), np.ones((40, 40), bool))
    small = calibration_histogram(np.full((2, 2), 0.3), np.ones((2, 2), bool))
    assert expected_calibration_error([large, small]) == pytest.approx(0.5 * 0.7)


def test_calibration_error_agrees_with_its_definition(monkeypatch):
    random = np.random.default_rng(0)
    probability, truth = random.random((30, 31)), random.random((30, 31)) < 0.4
    index = np.digitize(probability, np.linspace(0, 1, 16)[1:-1])
    expected = sum(
        (index == b).mean() * abs(probability[index == b].mean() - truth[index == b].mean()) for b in range(15)
    )
    monkeypatch.setattr(uncertainty, "_PIXELS_AT_ONCE", 100)
    assert expected_calibration_error([calibration_histogram(probability, truth)]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least one"):
        expected_calibration_error([])


def test_error_retention_by_hand():
    retention = error_retention([0.5, 0.1, 0.3], [0.2, 0.6, 0.9])
    np.testing.assert_allclose(retention.fraction, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(retention.curve, [0.3, 0.2, 0.3])
    np.testing.assert_allclose(retention.oracle, [0.1, 0.2, 0.3])
    assert retention[3:] == pytest.approx((0.8 / 3, 0.2, 0.3))


def test_error_retention_of_ties_is_the_mean_over_their_orders():
    errors, confidences = [0.9, 0.2, 0.6, 0.1], [0.5, 0.8, 0.5, 0.5]
    orders = [[1, *rest] for rest in itertools.permutations((0, 2, 3))]
    curves = [np.cumsum(np.take(errors, order)) / (1, 2, 3, 4) for order in orders]
    for order in itertools.permutations(range(4)):
        retention = error_retention(np.take(errors, order), np.take(confidences, order))
        np.testing.assert_allclose(retention.curve, np.mean(curves, axis=0))


def test_error_retention_without_an_order_is_chance():
    retention = error_retention([0.4, 0.2], [0.5, 0.5])
    assert retention.area == pytest.approx(retention.random_area)
    assert retention.oracle_area == pytest.approx((0.2 + 0.3) / 2)


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Without ties 1 - 6 sum d^2 / (n (n^2 - 1)); the ranks differ by 0, 1, 2, 0, -3.
    assert rank_correlation([1, 2, 3, 4, 5], [1, 3, 5, 3.5, 2]) == pytest.approx(1 - 6 * 14 / 120)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
    assert rank_correlation([0, 1, 1, 2], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))


@pytest.mark.parametrize("measure", [error_retention, rank_correlation])
@pytest.mark.parametrize("values", [([], []), ([1, 2], [1]), ([1, math.nan], [1, 2])])
def test_unusable_lists_are_refused(measure, values):
    with pytest.raises(ValueError, match="finite"):
        measure(*values)
