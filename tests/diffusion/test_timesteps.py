import numpy as np
import pytest

from medsegdiff.diffusion.timesteps import HighNoiseTimesteps, LossSecondMomentTimesteps, UniformTimesteps


class Fixed:
    """A generator whose next number is known."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def streams(count, seed=0):
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


def warmed(losses):
    """A sampler that has seen the losses (T, at least 10) in order."""
    timesteps = LossSecondMomentTimesteps(len(losses))
    for column in np.transpose(losses):
        timesteps.update(np.arange(len(losses)), column)
    return timesteps


def test_uniform_covers_every_timestep_equally():
    timesteps = UniformTimesteps(20)
    t, weights = timesteps.draw(streams(8000))
    counts = np.bincount(t, minlength=20)
    assert len(counts) == 20
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    assert weights.dtype == np.float32
    assert np.issubdtype(t.dtype, np.integer)


@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
def test_the_ends_of_the_unit_interval_are_timesteps(steps):
    t, _ = UniformTimesteps(steps).draw([Fixed(0.0), Fixed(np.nextafter(1, 0))])
    assert t.tolist() == [0, steps - 1]


def test_a_draw_depends_on_its_own_generator_alone():
    timesteps = UniformTimesteps(100)
    together, _ = timesteps.draw(streams(6))
    first, _ = timesteps.draw(streams(6)[:2])
    rest, _ = timesteps.draw(streams(6)[2:])
    np.testing.assert_array_equal(np.concatenate([first, rest]), together)


def test_second_moment_is_uniform_until_every_timestep_has_ten_losses():
    timesteps = LossSecondMomentTimesteps(3)
    for _ in range(10):
        timesteps.update([0, 1], [1.0, 5.0])
    for _ in range(9):
        timesteps.update([2], [9.0])
    np.testing.assert_array_equal(timesteps.probabilities(), [1 / 3] * 3)
    timesteps.update([2], [9.0])
    expected = np.array([1, 5, 9]) / 15 * 0.999 + 0.001 / 3
    np.testing.assert_allclose(timesteps.probabilities(), expected, rtol=1e-12)


def test_second_moment_probabilities_follow_the_last_ten_losses():
    losses = np.random.default_rng(0).exponential(size=(5, 14)) * np.arange(1, 6)[:, None]
    rms = np.sqrt((losses[:, -10:] ** 2).mean(axis=1))
    probabilities = warmed(losses).probabilities()
    np.testing.assert_allclose(probabilities, 0.999 * rms / rms.sum() + 0.001 / 5, rtol=1e-12)
    assert probabilities.sum() == pytest.approx(1)


def test_losses_of_the_same_timestep_in_one_batch_all_count():
    timesteps = LossSecondMomentTimesteps(2)
    timesteps.update([0] * 10, np.arange(10.0))
    timesteps.update([1] * 10, np.arange(10.0) * 3)
    np.testing.assert_allclose(timesteps.probabilities(), 0.999 * np.array([0.25, 0.75]) + 0.0005, rtol=1e-12)


def test_losses_of_zero_leave_it_uniform():
    np.testing.assert_array_equal(warmed(np.zeros((4, 10))).probabilities(), [0.25] * 4)


def test_importance_weights_are_unbiased():
    """E[weight * f(t)] is the mean of f over the timesteps, whatever the probabilities."""
    timesteps = warmed(np.outer([0.1, 1, 3, 0.5], np.ones(10)))
    p = timesteps.probabilities()
    edges = np.concatenate([[0], np.cumsum(p)])
    t, weights = timesteps.draw([Fixed(value) for value in (edges[:-1] + edges[1:]) / 2])
    assert t.tolist() == [0, 1, 2, 3]
    f = np.array([2.0, -1, 5, 11])
    assert (p * weights * f).sum() == pytest.approx(f.mean(), rel=1e-6)

    t, weights = timesteps.draw(streams(20000, seed=1))
    np.testing.assert_allclose(np.bincount(t) / 20000, p, atol=5 * 0.5 / np.sqrt(20000))
    values = weights * f[t]
    assert abs(values.mean() - f.mean()) < 5 * values.std() / np.sqrt(20000)


def test_state_round_trip_continues_exactly():
    losses = np.random.default_rng(1).exponential(size=(6, 12))
    timesteps = warmed(losses)
    saved = {name: array.copy() for name, array in timesteps.state().items()}
    again = LossSecondMomentTimesteps(6)
    again.load(saved)
    np.testing.assert_array_equal(again.probabilities(), timesteps.probabilities())
    for sampler in (timesteps, again):
        sampler.update([3, 3], [7.0, 8.0])
    np.testing.assert_array_equal(again.probabilities(), timesteps.probabilities())
    assert not np.array_equal(again.state()["losses"], saved["losses"])


def test_state_is_a_copy():
    timesteps = warmed(np.ones((3, 10)))
    timesteps.state()["losses"][:] = 100 * np.arange(3)[:, None]
    np.testing.assert_allclose(timesteps.probabilities(), 1 / 3)


def test_noisy_timesteps_come_more_often_and_count_as_much():
    timesteps = HighNoiseTimesteps(4)
    t, weights = timesteps.draw(streams(10_000))
    np.testing.assert_allclose(np.bincount(t) / 10_000, [0.1, 0.2, 0.3, 0.4], atol=5 * 0.005)
    assert weights.dtype == np.float32 and (weights == 1).all()
