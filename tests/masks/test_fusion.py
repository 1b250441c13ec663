from pathlib import Path

import numpy as np
import pytest

from medsegdiff.masks import fusion

CASE = Path(__file__).parents[1] / "parity" / "cases" / "fusion-and-metrics.npz"


@pytest.fixture
def members():
    return np.random.default_rng(0).random((7, 1, 5, 6), dtype=np.float32)


def test_published_rule_matches_the_original():
    case = np.load(CASE)
    np.testing.assert_allclose(fusion.published(case["ensemble"]), case["fused"][0], atol=1e-6, rtol=0)


def test_where_neither_mask_has_anything_their_blend_is_empty():
    nothing = np.zeros((1, 1, 4, 4), np.float32)
    with np.errstate(all="raise"):
        assert not fusion.published_blend(nothing, nothing - 1).any()


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
    np.testing.assert_array_equal(ensemble.std, np.zeros((1, 5, 6)))
    ensemble.add(members[1])
    np.testing.assert_array_equal(first, members[0])


def test_accumulator_refuses_another_shape(members):
    ensemble = fusion.Ensemble()
    ensemble.add(members[0])
    with pytest.raises(ValueError, match="shape"):
        ensemble.add(members[0, 0])


def test_votes_count_masks():
    members = np.array([[0.0, 0.5], [0.9, 0.51], [0.6, 1.0]])
    np.testing.assert_allclose(fusion.mean(members > 0.5), [2 / 3, 2 / 3])


def expectation_maximisation(masks, rounds=200):
    """STAPLE as its paper has it (Warfield et al. 2004, equations 20 and 23), the prior being the mean mask."""
    d = masks.reshape(len(masks), -1).astype(np.float64)
    prior = d.mean()
    p = np.full((len(d), 1), 0.99999)
    q = p.copy()
    for _ in range(rounds):
        a = prior * np.prod(np.where(d, p, 1 - p), axis=0)
        b = (1 - prior) * np.prod(np.where(d, 1 - q, q), axis=0)
        w = a / (a + b)
        p = (d * w).sum(1, keepdims=True) / w.sum()
        q = ((1 - d) * (1 - w)).sum(1, keepdims=True) / (1 - w).sum()
    return w.reshape(masks.shape[1:])


def test_staple_is_expectation_maximisation():
    rng = np.random.default_rng(1)
    truth = np.zeros((20, 24), bool)
    truth[5:15, 6:18] = True
    flips = np.array([0.05, 0.1, 0.1, 0.3])[:, None, None]
    masks = truth ^ (rng.random((4, 20, 24)) < flips)
    fused = fusion.staple(masks.astype(np.float32))
    np.testing.assert_allclose(fused, expectation_maximisation(masks), atol=1e-3)
    wrong = {rule: ((f > 0.5) != truth).sum() for rule, f in (("staple", fused), ("vote", fusion.mean(masks > 0.5)))}
    assert wrong["staple"] < wrong["vote"]  # it finds out whom to trust


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_staple_of_masks_that_are_alike_is_that_mask(value):
    np.testing.assert_array_equal(fusion.staple(np.full((3, 4, 5), value)), np.full((4, 5), value))


def test_every_rule_of_the_accumulator_is_the_function_of_its_name(members):
    ensemble = fusion.Ensemble()
    for member in members:
        ensemble.add(member)
    for rule, wanted in (
        ("mean", fusion.mean(members)),
        ("vote", fusion.mean(members > 0.5)),
        ("published", fusion.published(members)),
    ):
        fused = ensemble.fuse(rule)
        assert fused.dtype == np.float32
        np.testing.assert_allclose(fused, wanted, rtol=1e-6)
    staples = [fusion.staple(members[:, channel]) for channel in range(members.shape[1])]
    np.testing.assert_array_equal(ensemble.fuse("staple"), staples)
    np.testing.assert_array_equal(ensemble.masks, members > 0.5)


def test_of_several_classes_a_member_votes_for_its_likeliest():
    ensemble = fusion.Ensemble()
    for _ in range(3):
        ensemble.add(np.float32([[[0.42, 0.1]], [[0.40, 0.1]]]))  # class 1, though no class exceeds one half
    for rule in ("vote", "staple"):
        np.testing.assert_array_equal(ensemble.fuse(rule), [[[1, 0]], [[0, 0]]])


def test_agreement_is_the_mean_dice_of_pairs():
    left, right, both = (np.float32([[row]]) for row in ([1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]))
    ensemble = fusion.Ensemble()
    ensemble.add(left)
    assert ensemble.agreement is None
    ensemble.add(right)
    assert ensemble.agreement == 0
    ensemble.add(both)
    assert ensemble.agreement == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)


def test_members_without_foreground_agree_and_are_counted():
    ensemble = fusion.Ensemble()
    nothing, second = np.zeros((2, 2, 4)), np.zeros((2, 2, 4))
    second[1, 0, 0] = 1
    for count, (member, empty) in enumerate(((nothing, 1), (nothing, 2), (second, 2), (nothing, 3)), start=1):
        ensemble.add(member)
        assert ensemble.empty == empty
        if count == 2:
            assert ensemble.agreement == 1


def test_an_ensemble_settles_as_its_standard_error_falls():
    rng = np.random.default_rng(0)
    base = np.zeros((1, 10, 10))
    base[0, 2:8, 2:8] = 0.8
    ensemble, seen = fusion.Ensemble(), []
    for _ in range(64):
        ensemble.add(np.clip(base + rng.normal(0, 0.05, base.shape) * (base > 0), 0, 1))
        seen.append(ensemble.unsettled)
    assert seen[0] == np.inf
    assert seen[63] == pytest.approx(0.05 / 8 / 0.8, rel=0.1)  # s / sqrt(K) over the mean
    assert seen[15] == pytest.approx(2 * seen[63], rel=0.15)


def test_members_that_are_alike_are_settled_and_empty_ones_too():
    ensemble = fusion.Ensemble()
    for _ in range(2):
        ensemble.add(np.zeros((1, 4, 4)))
    assert ensemble.unsettled == 0
