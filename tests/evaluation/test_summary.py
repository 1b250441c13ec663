import math
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.evaluation.measure import Score
from medsegdiff.evaluation.metrics import COMPARED
from medsegdiff.evaluation.summary import calibration, comparison, gaps, selection, summaries
from medsegdiff.masks.statistics import summarise
from medsegdiff.masks.uncertainty import calibration_histogram, expected_calibration_error


def score(histograms=None, **metrics):
    return Score("x", Path("x.png"), metrics, histograms)


def compared(cal, member, ensemble, gain=0.0):
    """A score that is the same in all metrics."""
    values = {"cal_": cal, "member_": member, "": ensemble + gain}
    return score(**{prefix + key: value for prefix, value in values.items() for key in COMPARED})


def test_summaries_are_over_the_images_that_have_the_metric():
    scores = [score(dice=0.2, ged=0.5), score(dice=0.4), score(dice=0.9, ged=0.7)]
    found = summaries(scores, ["dice", "ged", "brier"], seed=3)
    assert found == {"dice": summarise([0.2, 0.4, 0.9], 3), "ged": summarise([0.5, 0.7], 3)}


def test_calibration_is_the_mean_of_the_classes_errors():
    random = np.random.default_rng(0)
    images = [
        np.stack([calibration_histogram(random.random((6, 6)), random.random((6, 6)) < 0.3) for _ in range(2)])
        for _ in range(3)
    ]
    found = calibration([score(), *map(score, images)])
    assert found.images == 3
    errors = [expected_calibration_error([image[c] for image in images]) for c in range(2)]
    assert found.ece == pytest.approx(np.mean(errors))
    shares, probabilities, truths = found.bins
    assert shares.sum() == pytest.approx(1)
    every = [image[c] for image in images for c in range(2)]
    np.testing.assert_allclose([probabilities, truths], np.mean([one[1:] for one in every], axis=0))
    assert calibration([score()]) is None


def test_comparison_pairs_the_same_images():
    scores = [compared(0.5, 0.4, 0.6), compared(0.9, 0.6, 1.0), score(dice=0.1, member_dice=0.1), score(dice=0.0)]
    found = comparison(scores, seed=0)
    assert found.images == 2
    for rows in found.metrics.values():
        assert [rows[name].mean for name in rows] == pytest.approx([0.7, 0.5, 0.8, 0.1])
        # Every image gains 0.1, so the paired interval is a point where the metrics' own are wide.
        assert rows["ensemble - cal"][2:4] == pytest.approx((0.1, 0.1))
        assert rows["cal"][2:4] == pytest.approx((0.5, 0.9))
    assert set(found.metrics) == set(COMPARED)
    assert comparison(scores[2:], seed=0) is None


def agreeing(dice, agreement, empty=0.0):
    return score(dice=dice, agreement=agreement, empty_members=empty)


def test_selection_by_hand():
    found = selection([agreeing(0.5, 0.2), agreeing(0.9, 0.6), agreeing(0.7, 0.9)])
    np.testing.assert_allclose(found.retention.curve, [0.3, 0.2, 0.3])
    assert found.correlation == pytest.approx(0.5)
    assert (found.images, found.empty) == (3, 0)


def test_selection_counts_images_whose_members_are_all_empty():
    assert selection([agreeing(0, 1, 1.0), agreeing(0, 0.8, 0.8), agreeing(1, 1), score(dice=0.5)]).empty == 1


def test_selection_takes_two_images_with_an_agreement():
    assert selection([agreeing(0.5, 0.2), score(dice=0.9)]) is None
    assert math.isnan(selection([agreeing(0.5, 0.2), agreeing(0.5, 0.4)]).correlation)


def test_what_is_absent_is_told_once_each():
    whole = {"brier": 0, "member_dice": 0, "cal_dice": 0, "agreement": 0}
    assert gaps([score(**whole), score(**whole)]) == []
    nothing = gaps([score(), score()])
    assert len(nothing) == 4
    assert all("not measured" in line for line in nothing)
    assert sum("--save-members" in line for line in nothing) == 2
    (partly,) = gaps([score(**whole), score(**whole), score(member_dice=0, cal_dice=0, agreement=0)])
    assert partly.startswith("Brier score, ECE: without 1 of 3 images")
    (alone,) = gaps([score(**whole)])
    assert "at least 2 images" in alone
