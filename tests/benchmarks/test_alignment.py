import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is compared with, where it is installed")

from benchmarks import alignment
from benchmarks.torch_trainer import TorchTrainer
from medsegdiff.data.loader import Batches
from medsegdiff.training.trainer import Trainer
from tests.training.variants import with_training


@pytest.fixture
def config(config):
    network = dataclasses.replace(config.network, num_channels=64, dropout=0.1)
    return with_training(
        dataclasses.replace(config, network=network),
        schedule_sampler="uniform",
        batch_size=4,
        lr=1e-4,
        warmup_steps=2,
        weight_decay=0.01,
        clip_grad=1.0,
        ema_rate="0.9",
    )


def test_both_frameworks_take_the_same_steps_with_the_same_dropout(config, discs):
    ours, theirs, batches = Trainer(config), TorchTrainer(config), Batches(discs, 4, seed=0)
    for step in range(3):
        result, (losses, t, norms) = ours.train_step(batches[step]), theirs.train_step(batches[step])
        np.testing.assert_array_equal(result.t, t)
        for name, values in losses.items():
            np.testing.assert_allclose(result.losses[name], values, rtol=2e-3, err_msg=f"{name}, step {step}")
        kinks = 0.25 if step else 1e-3  # of LeakyReLU, on whose other side rounding puts an activation
        assert norms["grad_norm"] == pytest.approx(result.norms["grad_norm"], rel=kinks)
        assert norms["param_norm"] == pytest.approx(result.norms["param_norm"], rel=1e-5)
    ours, theirs = ours.checkpoint().arrays, theirs.checkpoint().arrays
    for name, value in theirs["ema-0.9"].items():
        np.testing.assert_allclose(value, ours["ema-0.9"][name], atol=5e-3, err_msg=name)


def test_a_stopped_training_continues(config, discs, tmp_path):
    batches, path = Batches(discs, 4, seed=0), tmp_path / "training.pt"
    trainer = TorchTrainer(config)
    trainer.train_step(batches[0])
    trainer.save(path, row=0, pending={})
    again = TorchTrainer(config)
    assert again.restore(path)["row"] == 0
    for one in (trainer, again):
        one.train_step(batches[1])
    for name, value in trainer.checkpoint().arrays["model"].items():
        np.testing.assert_array_equal(again.checkpoint().arrays["model"][name], value)


def test_curves_are_compared_after_they_have_settled():
    steps = np.arange(100, 501, 100.0)
    ours = {"step": steps, **{name: np.full(5, 2.0) for name in alignment.CURVES}}
    logs = {"ours": ours, "pytorch": {**ours, "loss_cal": np.array([9, 9, 2.1, 2.0, 2.2])}, "nudged": ours}
    found = alignment.differences(logs, "pytorch")
    assert found["loss_cal"] == pytest.approx((0.05, 0.05))
    assert found["vb"] == (0, 0)
    scores = {side: dict.fromkeys(alignment.METRICS, 0.5) for side in alignment.SIDES}
    text = alignment.page(
        SimpleNamespace(config="c.yaml", steps=500, lr=1e-4, work=Path("w"), out=Path("o")), logs, scores
    )
    assert "| PyTorch | 0.5000 | 0.5000 | 0.5000 | 0.5000 |" in text
    assert "| PyTorch | +0.0% (0.0%) | +0.0% (0.0%) | +5.0% (5.0%) |" in text
    assert "--steps 500 --lr 0.0001 --work w --out o\n```" in text


def test_a_nudged_training_starts_beside_ours_and_only_beside(config, monkeypatch):
    trainers = []
    monkeypatch.setattr(alignment.medsegdiff, "train", lambda config: trainers.append(Trainer(config)))
    alignment.train_nudged(config)
    ours, nudged = (trainer.checkpoint().arrays["model"] for trainer in (Trainer(config), *trainers))
    far = [np.abs(nudged[name] - value).max() / np.abs(value).max() for name, value in ours.items() if value.any()]
    assert 0 < max(far) < 1e-6
