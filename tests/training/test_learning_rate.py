import math

import pytest

from medsegdiff.config.training import TrainingConfig
from medsegdiff.training.learning_rate import learning_rate


def rates(at, **options):
    training = TrainingConfig(lr=1.0, **options)
    return [learning_rate(training, step) for step in at]


def test_the_published_fall_is_linear_to_its_step_and_stays_at_zero():
    assert rates((0, 5, 10, 12), lr_anneal_steps=10) == [1.0, 0.5, 0.0, 0.0]


def test_without_a_schedule_it_is_constant():
    assert rates((0, 10**6)) == [1.0, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_ends_with_the_training_unless_told_otherwise(schedule):
    assert rates((0, 20), steps=20, lr_schedule=schedule) == [1.0, 0.0]
    assert rates((0, 8, 20), steps=20, lr_schedule=schedule, lr_anneal_steps=8) == [1.0, 0.0, 0.0]


def test_the_cosine_is_half_a_wave():
    expected = [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(9)]
    assert rates(range(9), lr_schedule="cosine", lr_anneal_steps=8) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_it_warms_up_linearly_and_falls_afterwards(schedule):
    found = rates(range(20), steps=20, warmup_steps=4, lr_schedule=schedule)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    if schedule == "linear":
        assert found[4:] == pytest.approx([1 - k / 16 for k in range(16)])
