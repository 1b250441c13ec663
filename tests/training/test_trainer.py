import json
import math

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.loader import Batches
from medsegdiff.kernels import precision
from medsegdiff.nn import weights
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt
from medsegdiff.training.loss_scale import LossScale
from medsegdiff.training.optimiser import global_norm
from medsegdiff.training.trainer import Trainer
from tests.training.variants import with_network, with_training


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
    three = with_network(config, num_classes=3)
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


def eight(discs):
    """Eight different samples: images, masks, noise, timesteps, importance."""
    rng = np.random.default_rng(0)
    chosen = [0, 1, 2, 3, 4, 5, 0, 1]
    images = np.stack([np.roll(discs.image(i), k, axis=2) for k, i in enumerate(chosen)])
    masks = np.stack([np.roll(discs.mask(i), k, axis=2) for k, i in enumerate(chosen)])
    noise = rng.standard_normal(masks.shape).astype(np.float32)
    return images, masks, noise, rng.integers(0, 30, 8), rng.uniform(0.5, 2, 8).astype(np.float32)


def gradients(config, samples):
    """Losses and gradients; nothing is zero at first, so that every gradient says something."""
    trainer = Trainer(config)
    rng = np.random.default_rng(3)
    for value in trainer.parameters.values():
        if not value.numpy().any():
            value.assign(jt.array(rng.standard_normal(tuple(value.shape)).astype(np.float32) * np.float32(0.05)))
    # Batch norm takes its statistics from what is computed at once, so it differs between a part and the whole.
    trainer.network.hwm.eval()
    measured = trainer.measure(*samples)
    return measured, {name: value.numpy() for name, value in measured.gradients.items()}


def assert_same_gradients(ours, theirs):
    scale = max(np.abs(g).max() for g in theirs.values())
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient, atol=1e-5 * scale, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_of_eight_is_four_times_two(config, discs, size):
    config, samples = with_network(config, dropout=0.2), eight(discs)
    whole, expected = gradients(with_training(config, batch_size=8), samples)
    parts, accumulated = gradients(with_training(config, batch_size=8, microbatch=size), samples)
    assert parts.total == pytest.approx(whole.total, rel=1e-5)
    for name, loss in whole.losses.items():
        np.testing.assert_allclose(parts.losses[name], loss, rtol=1e-5, atol=1e-6)
    assert_same_gradients(accumulated, expected)


def test_the_initial_weights_depend_on_the_seed_alone(config):
    first, same, other = (weights.to_arrays(Trainer(with_training(config, seed=s)).state) for s in (3, 3, 4))
    name = "input_blocks.0.0.weight"
    np.testing.assert_array_equal(first[name], same[name])
    assert (first[name] != other[name]).any()


def everything(trainer):
    """All that a step changes, as arrays."""
    checkpoint = trainer.checkpoint()
    groups = {f"{group}:{name}": a for group, arrays in checkpoint.arrays.items() for name, a in arrays.items()}
    return {**groups, **{f"timesteps:{k}": np.array(v) for k, v in checkpoint.training["timesteps"].items()}}


def spoilt(batch, value):
    images = batch.images.copy()
    images[1, 0, 3, 4] = value
    return batch._replace(images=images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("microbatch", [-1, 2])
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(config, discs, value, microbatch):
    trainer = Trainer(with_training(config, batch_size=4, microbatch=microbatch, ema_rate="0.9999,0.9"))
    batches = Batches(discs, 4, seed=0)
    trainer.train_step(batches[0])
    before, updates = everything(trainer), trainer.optimiser.count
    result = trainer.train_step(spoilt(batches[1], value))
    assert result.skipped
    assert not math.isfinite(result.total)
    after = everything(trainer)
    assert after.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert (trainer.step, trainer.optimiser.count, trainer.skipped_in_a_row) == (2, updates, 1)
    assert not trainer.train_step(batches[2]).skipped
    assert trainer.skipped_in_a_row == 0
    assert all(np.isfinite(array).all() for array in everything(trainer).values())


@pytest.mark.parametrize("value", [3e38, 1e20])
def test_a_gradient_with_an_infinite_square_is_noticed_where_the_loss_is_fine(config, discs, monkeypatch, value):
    trainer = Trainer(config)
    measure = trainer.measure

    def overflown(*samples):
        measured = measure(*samples)
        name = next(iter(measured.gradients))
        measured.gradients[name] = measured.gradients[name] + jt.array(np.float32(value))
        return measured

    monkeypatch.setattr(trainer, "measure", overflown)
    before = everything(trainer)
    assert trainer.train_step(Batches(discs, 2, seed=0)[0]).skipped
    after = everything(trainer)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("name", "value"), [("out.2.bias", np.nan), ("input_blocks.0.0.weight", -np.inf), ("running_var", np.inf)]
)
def test_weights_that_are_not_finite_after_a_step_are_named(config, discs, monkeypatch, name, value):
    trainer = Trainer(config)
    descend = trainer.descend
    name = next(own for own in trainer.state if own.endswith(name))

    def broken(*given):
        descend(*given)
        spoilt = trainer.state[name].numpy().copy()
        spoilt.flat[-1] = value
        trainer.state[name].assign(jt.array(spoilt))
        return {"grad_norm": 1.0, "param_norm": float(global_norm(trainer.parameters).item())}

    monkeypatch.setattr(trainer, "descend", broken)
    with pytest.raises(InputError, match=rf"^step 1: training has broken the weights: {name} is not .*lower lr"):
        trainer.train_step(Batches(discs, 2, seed=0)[0])


def test_a_run_goes_on_after_a_skipped_step_as_when_it_is_restored_there(config, discs):
    batches = Batches(discs, 2, seed=0)
    straight, restored = Trainer(config), Trainer(config)
    straight.train_step(batches[0])
    straight.train_step(spoilt(batches[1], np.nan))
    restored.restore(straight.checkpoint())
    assert restored.skipped_in_a_row == 1
    for trainer in (straight, restored):
        trainer.train_step(batches[2])
    ours, theirs = everything(restored), everything(straight)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_a_long_gradient_is_clipped_to_the_given_norm(config, discs):
    batch = Batches(discs, 2, seed=0)[0]
    plain, clipped, loose = (Trainer(with_training(config, clip_grad=clip)) for clip in (0.0, 1e-3, 1e6))
    norms = [trainer.train_step(batch).norms["grad_norm"] for trainer in (plain, clipped, loose)]
    assert norms[0] == norms[1] == norms[2] > 1e-3  # what is logged is the norm before
    first = {name: value.numpy() for name, value in plain.optimiser.mean.items()}
    scaled = {name: value.numpy() for name, value in clipped.optimiser.mean.items()}
    norm = math.sqrt(sum(float((m.astype(np.float64) ** 2).sum()) for m in scaled.values()))
    assert norm == pytest.approx(1e-3 * (1 - plain.optimiser.beta1), rel=1e-4)
    for name, mean in first.items():
        np.testing.assert_allclose(scaled[name], mean * (1e-3 / norms[0]), rtol=1e-4, atol=1e-12)
    for name, value in loose.parameters.items():
        np.testing.assert_array_equal(value.numpy(), plain.parameters[name].numpy())


# Of version v2 with a third level, so that its transformer has 64 places, as the published network, and not 256.
V2 = {"version": "v2", "channel_mult": "1,1,1"}


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"version": "v1", "resblock_updown": True}, V2])
def test_computing_activations_again_gives_the_same_step(config, discs, options):
    config, samples = with_network(config, **options), eight(discs)
    results = []
    for again in (False, True, True):
        trainer = Trainer(with_training(config, use_checkpoint=again, batch_size=8))
        measured = trainer.measure(*samples)
        buffers = {name: value.numpy() for name, value in trainer.state.items() if weights.is_buffer(name)}
        results.append((measured.losses, {k: g.numpy() for k, g in measured.gradients.items()}, buffers))
    kept, computed, twice = results
    for name, loss in kept[0].items():
        np.testing.assert_allclose(computed[0][name], loss, rtol=1e-5, atol=1e-6)
    assert_same_gradients(computed[1], kept[1])
    for name, value in kept[2].items():  # a batch that was taken in twice would show
        np.testing.assert_allclose(computed[2][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for ours, theirs in zip(computed, twice):
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_activations_are_computed_again_part_by_part_in_several_microbatches(config, discs):
    config, samples = with_network(config, dropout=0.2), eight(discs)
    _, expected = gradients(with_training(config, batch_size=8), samples)
    _, again = gradients(with_training(config, batch_size=8, microbatch=4, use_checkpoint=True), samples)
    assert_same_gradients(again, expected)


def test_without_averages_the_raw_weights_are_segmented_with(config):
    assert Trainer(with_training(config, ema_rate="")).smoothed().keys() == Trainer(config).smoothed().keys()
    trainer = Trainer(with_training(config, ema_rate="0.9, 0.99"))
    assert trainer.smoothed() is trainer.averages["0.9"].values


def scaled(config, start, growth=0.0):
    """A trainer in float32 whose losses are scaled all the same."""
    trainer = Trainer(config)
    trainer.loss_scale = LossScale(growth, start)
    return trainer


def test_scaling_the_loss_changes_no_bit(config, discs):
    config = with_training(config, batch_size=5, microbatch=3, clip_grad=0.5, weight_decay=0.01)
    batches = Batches(discs, 5, seed=0)
    plain, constant, growing = Trainer(config), scaled(config, 2.0**16), scaled(config, 2.0**10, growth=0.5)
    for step in range(4):
        results = [trainer.train_step(batches[step]) for trainer in (plain, constant, growing)]
        for result in results[1:]:
            assert (result.total, result.norms) == (results[0].total, results[0].norms)
    assert growing.loss_scale.value == 2.0**12
    expected = everything(plain)
    for trainer in (constant, growing):
        for name, array in everything(trainer).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_scale_too_large_comes_down_until_the_gradient_is_finite(config, discs):
    trainer, batches = scaled(config, 2.0**126), Batches(discs, 2, seed=0)
    before, updates = everything(trainer), trainer.optimiser.count
    for step in range(40):
        scale = trainer.loss_scale.value
        result = trainer.train_step(batches[step])
        assert math.isfinite(result.total)
        assert trainer.skipped_in_a_row == 0
        if not result.skipped:
            break
        assert trainer.loss_scale.value == scale / 2
        for name, array in everything(trainer).items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert step > 0
    assert trainer.step == step + 1
    assert trainer.optimiser.count == updates + 1
    assert trainer.loss_scale.value == scale
    assert all(np.isfinite(array).all() for array in everything(trainer).values())


def test_a_loss_that_is_not_finite_is_not_the_scale_s_fault(config, discs):
    trainer, batch = scaled(config, 2.0**16), Batches(discs, 2, seed=0)[0]
    assert trainer.train_step(spoilt(batch, np.nan)).skipped
    assert (trainer.loss_scale.value, trainer.skipped_in_a_row) == (2.0**16, 1)


def test_the_scale_is_restored_in_the_same_precision_only(config):
    half = with_training(config, precision="fp16", fp16_scale_growth=0.01)
    trainer = Trainer(half)
    assert (trainer.loss_scale.value, trainer.loss_scale.patience) == (2.0**16, 100)
    trainer.loss_scale.update(False)
    trainer.loss_scale.update(True)
    saved = trainer.checkpoint()
    for there, value, finite in ((half, 2.0**15, 1), (config, 1, 0)):
        resumed = Trainer(there)
        resumed.restore(saved)
        assert resumed.loss_scale.state() == {"value": value, "finite": finite}
    resumed = Trainer(half)
    resumed.restore(Trainer(config).checkpoint())
    assert resumed.loss_scale.state() == {"value": 2.0**16, "finite": 0}


def test_a_follower_takes_over_the_loss_scale_with_all_else(config, monkeypatch):
    half = with_training(config, precision="fp16", fp16_scale_growth=0.01)
    leader, follower = Trainer(half), Trainer(half)
    leader.step, leader.skipped_in_a_row = 5, 2
    leader.loss_scale.update(False)
    leader.loss_scale.update(True)
    told = []
    monkeypatch.setattr(exchange, "tell", lambda value: told.append(json.dumps(value)) or value)
    leader.follow_the_leader()
    monkeypatch.setattr(exchange, "tell", lambda value: json.loads(told.pop(0)))
    follower.follow_the_leader()
    ours, theirs = follower.checkpoint().training, leader.checkpoint().training
    assert (follower.step, ours) == (5, theirs)
    assert ours["loss_scale"] == {"value": 2.0**15, "finite": 1}


@pytest.mark.parametrize("again", [False, True])
def test_the_network_is_computed_in_the_precision_of_the_training(config, discs, precisions_seen, again):
    trainer = Trainer(with_training(config, precision="bf16", use_checkpoint=again))
    kinds = {str(value.dtype) for value in trainer.measure(*eight(discs)).gradients.values()}
    assert set(precisions_seen) == {"bf16"}
    assert kinds == {"float32"}
    assert precision.current() == "fp32"


def test_a_dice_weight_trains_and_is_told(config, discs):
    trainer = Trainer(with_training(config, dice_weight=0.5))
    losses = trainer.train_step(Batches(discs, 2, seed=0)[0]).losses
    np.testing.assert_allclose(
        losses["loss"], losses["loss_diff"] + losses["vb"] + 0.5 * losses["loss_dice"], rtol=1e-4
    )
    assert (losses["loss_dice"] > 0).all()
    assert "loss_dice" not in Trainer(config).train_step(Batches(discs, 2, seed=0)[0]).losses
