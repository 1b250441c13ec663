import math

import numpy as np
import pytest

from medsegdiff.masks import statistics
from medsegdiff.masks.statistics import summarise


def test_mean_and_sample_standard_deviation():
    summary = summarise([0.2, 0.4, 0.9])
    assert summary.mean == pytest.approx(0.5)
    assert summary.std == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert summary.n == 3


def test_interval_agrees_with_the_normal_one_on_many_values():
    values = np.random.default_rng(0).normal(size=400)
    summary = summarise(values)
    half = 1.96 * summary.std / 20
    assert summary.low == pytest.approx(summary.mean - half, abs=0.1 * half)
    assert summary.high == pytest.approx(summary.mean + half, abs=0.1 * half)


def test_interval_of_two_values_is_their_range():
    # A mean of two draws is an end with probability 1/4 each, more than the 2.5 % cut off.
    assert summarise([0.0, 1.0])[2:4] == (0, 1)


def test_same_seed_same_interval():
    values = np.linspace(0, 1, 30) ** 2
    assert summarise(values, seed=1) == summarise(values, seed=1)
    assert summarise(values, seed=1) != summarise(values, seed=2)


def test_draws_in_several_parts_fill_every_resample(monkeypatch):
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 70)
    summary = summarise(np.full(30, 0.25), resamples=101)
    assert (summary.low, summary.high) == (0.25, 0.25)


def test_one_value_has_no_standard_deviation():
    summary = summarise([0.7])
    assert (summary.mean, summary.n) == (0.7, 1)
    assert np.isnan([summary.std, summary.low, summary.high]).all()


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [[0.5, 0.5]]])
def test_unusable_values_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        summarise(values)
