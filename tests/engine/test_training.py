import copy
import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.data.loader import Batches
from medsegdiff.engine import checkpoint as checkpoints
from medsegdiff.engine.training import Interrupted, Trainer, _undisturbed, train
from medsegdiff.nn import weights
from medsegdiff.runtime.errors import InputError


def final_weights(out):
    return checkpoints.load(checkpoints.list_checkpoints(Path(out))[-1]).arrays


def with_training(config, **options):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **options))


def test_a_resumed_run_ends_with_the_same_bits_and_the_same_log(config, discs, tmp_path):
    whole = with_training(config, out_dir=str(tmp_path / "whole"), log_interval=3)
    broken = with_training(config, out_dir=str(tmp_path / "broken"), log_interval=3)
    train(whole, discs)
    train(with_training(broken, steps=2), discs)
    train(broken, discs)
    ours, theirs = final_weights(tmp_path / "broken"), final_weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() == {"model", "ema-0.9999", "optimizer"}
    for group, arrays in theirs.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours[group][name], array, err_msg=f"{group}: {name}")
    with (tmp_path / "broken" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "3", "4"]


def test_training_learns_the_discs(config, discs):
    trainer = Trainer(with_training(config, steps=30, batch_size=6))
    batches = Batches(discs, 6, seed=0)
    losses = [float(trainer.train_step(batches[step]).losses["loss_cal"].mean()) for step in range(30)]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


class Rings:
    """The discs with another class inside, in a shade of its own."""

    def __init__(self, discs):
        self.discs, self.ids = discs, discs.ids

    def __len__(self):
        return len(self.discs)

    def mask(self, index):
        disc = self.discs.mask(index)[0]
        core = np.minimum.reduce([np.roll(disc, shift, axis) for shift in (-3, 3) for axis in (0, 1)])
        return np.stack([disc - core, core])

    def image(self, index):
        return self.discs.image(index) - 0.3 * self.mask(index)[1]


def test_three_classes_are_learnt_through_every_channel(config, discs):
    three = dataclasses.replace(config, network=dataclasses.replace(config.network, num_classes=3))
    trainer = Trainer(with_training(three, steps=30, batch_size=6, lr=3e-3))
    batches = Batches(Rings(discs), 6, seed=0, augmented=True)
    batch = batches[0]
    assert batch.masks.shape == (6, 2, 32, 32)
    noise = np.random.default_rng(0).standard_normal(batch.masks.shape).astype(np.float32)
    measured = trainer.measure(batch.images, batch.masks, noise, np.arange(6), np.ones(6, np.float32))
    for name, channels in (("out.2.weight", 4), ("hwm.seg_outputs.0.weight", 2)):
        gradient = measured.gradients[name].numpy()
        assert len(gradient) == channels
        assert np.isfinite(gradient).all()
        assert (np.abs(gradient).max((1, 2, 3)) > 0).all(), name
    losses = [trainer.train_step(batches[step]).losses for step in range(30)]
    assert all(np.isfinite(loss).all() for step in losses for loss in step.values())
    cal = [float(step["loss_cal"].mean()) for step in losses]
    assert np.mean(cal[-5:]) < 0.75 * np.mean(cal[:5])


def test_micro_batches_accumulate_the_gradient_of_the_whole_batch(config, discs):
    # Both halves hold the same images, so batch norm sees the same statistics in a half as in the whole.
    images = np.stack([discs.image(i) for i in (0, 1, 0, 1)])
    masks = np.stack([discs.mask(i) for i in (0, 1, 0, 1)])
    noise = np.random.default_rng(0).standard_normal(masks.shape).astype(np.float32)
    t, importance = np.array([1, 5, 9, 13]), np.float32([1, 2, 1, 0.5])
    results = []
    for size in (-1, 2):
        trainer = Trainer(with_training(config, microbatch=size, batch_size=4))
        trainer.network.hwm.eval()
        measured = trainer.measure(images, masks, noise, t, importance)
        results.append((measured, {name: g.numpy() for name, g in measured.gradients.items()}))
    (whole, expected), (parts, accumulated) = results
    assert parts.total == pytest.approx(whole.total, rel=1e-5)
    np.testing.assert_allclose(parts.losses["loss"], whole.losses["loss"], rtol=1e-5)
    scale = max(np.abs(g).max() for g in expected.values())
    for name, gradient in expected.items():
        np.testing.assert_allclose(accumulated[name], gradient, atol=1e-5 * scale, err_msg=name)


def test_the_learning_rate_falls_linearly(config):
    trainer = Trainer(with_training(config, lr=1.0, lr_anneal_steps=10))
    rates = []
    for step in (0, 5, 10, 12):
        trainer.step = step
        rates.append(trainer.lr)
    assert rates == [1.0, 0.5, 0.0, 0.0]


def test_the_initial_weights_depend_on_the_seed_alone(config):
    first, same, other = (
        weights.to_arrays(weights.state(Trainer(with_training(config, seed=s)).network)) for s in (3, 3, 4)
    )
    name = "input_blocks.0.0.weight"
    np.testing.assert_array_equal(first[name], same[name])
    assert (first[name] != other[name]).any()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_request_finishes_the_step_saves_and_leaves(config, discs, number, code):
    class Impatient(type(discs)):
        def image(self, index):
            os.kill(os.getpid(), number)
            return super().image(index)

    with pytest.raises(Interrupted) as stopped:
        train(config, Impatient())
    assert stopped.value.exit_code == code
    assert checkpoints.load_newest(Path(config.training.out_dir))[0].step == 1


def test_a_compiler_that_a_step_starts_survives_ctrl_c():
    with _undisturbed():
        compiler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5); print('done')"])
        compiler.send_signal(signal.SIGINT)
    assert compiler.wait() == 0


def test_other_images_are_refused(config, discs):
    train(with_training(config, steps=1), discs)
    others = copy.copy(discs)
    others.fingerprint = "others"
    with pytest.raises(InputError, match="other images"):
        train(config, others)


def test_another_configuration_is_refused_and_named(config, discs):
    train(with_training(config, steps=1), discs)
    other = dataclasses.replace(config, network=dataclasses.replace(config.network, num_res_blocks=2))
    with pytest.raises(InputError, match="--num-res-blocks 1, not 2"):
        train(other, discs)


def test_a_run_of_damaged_checkpoints_is_not_begun_anew_over_them(config, discs, capsys):
    last = train(with_training(config, steps=1), discs)
    (last / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="none of its checkpoints can be used"):
        train(config, discs)
    assert "model.safetensors" in capsys.readouterr().err
