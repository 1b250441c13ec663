from pathlib import Path

import numpy as np
import pytest

from medsegdiff.masks import fusion

CASE = Path(__file__).parents[1] / "parity" / "cases" / "fusion-and-metrics.npz"


@pytest.fixture
def members():
    return np.random.default_rng(0).random((7, 2, 5, 6), dtype=np.float32)


def test_published_rule_matches_the_original():
    case = np.load(CASE)
    np.testing.assert_allclose(fusion.published(case["ensemble"]), case["fused"][0], atol=1e-6, rtol=0)


def test_rules_by_hand():
    members = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]])
    np.testing.assert_allclose(fusion.mean(members), [0.5, 1])
    np.testing.assert_allclose(fusion.published(members), [0.25, 1])


def test_accumulator_agrees_with_the_rules(members):
    ensemble = fusion.Ensemble()
    for member in members:
        ensemble.add(member)
    assert ensemble.count == 7
    np.testing.assert_allclose(ensemble.mean, fusion.mean(members), rtol=1e-6)
    np.testing.assert_allclose(ensemble.std, members.std(axis=0), rtol=1e-6)
    assert ensemble.mean.dtype == ensemble.std.dtype == fusion.mean(members).dtype == np.float32


def test_accumulator_leaves_its_input_alone(members):
    ensemble = fusion.Ensemble()
    first = members[0].astype(np.float64)
    ensemble.add(first)
    np.testing.assert_array_equal(ensemble.std, np.zeros((2, 5, 6)))
    ensemble.add(members[1])
    np.testing.assert_array_equal(first, members[0])


def test_accumulator_refuses_another_shape_and_no_member(members):
    ensemble = fusion.Ensemble()
    with pytest.raises(ValueError, match="no member"):
        _ = ensemble.mean
    with pytest.raises(ValueError, match="no member"):
        _ = ensemble.std
    ensemble.add(members[0])
    with pytest.raises(ValueError, match="shape"):
        ensemble.add(members[0, 0])
