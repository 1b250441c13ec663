from pathlib import Path

import pytest

from medsegdiff.training.dry_run import _duration, dry_run, peak_gib
from medsegdiff.training.trainer import Trainer


def test_it_says_what_training_takes_and_writes_nothing(config):
    found = dict(dry_run(config, images=9))
    assert list(found) == ["parameters", "images", "steps per epoch", "memory held", "memory, peak", "time per step"]
    trained = sum(value.numel() for value in Trainer(config).parameters.values())
    assert found["parameters"] == f"{trained:,}"
    assert found["steps per epoch"] == "4.5 of 2 images; 0.9 epochs"
    assert 0.05 < float(found["memory, peak"].split()[0]) < peak_gib() + 0.01  # it is rounded
    assert "for 4 steps" in found["time per step"]
    assert not Path(config.training.out_dir).exists()


def test_what_is_known_without_a_step_is_told_before_one(config, monkeypatch):
    class Exhausted(Exception):
        pass

    def step(trainer, batch):
        raise Exhausted

    monkeypatch.setattr(Trainer, "train_step", step)
    found = {}
    with pytest.raises(Exhausted):
        for what, how_much in dry_run(config, images=9):
            found[what] = how_much
    assert list(found) == ["parameters", "images", "steps per epoch", "memory held"]
    # Weights, gradients, two moments and an average, 4 bytes each; buffers add little.
    least = 4 * 5 * int(found["parameters"].replace(",", "")) / 2**30
    assert least - 0.005 <= float(found["memory held"].split()[0]) < 1.02 * least + 0.005


def test_durations_are_in_fitting_units():
    assert [_duration(s) for s in (50, 600, 3 * 3600, 3 * 86400)] == [
        "50 seconds",
        "10.0 minutes",
        "3.0 hours",
        "3.0 days",
    ]
