import numpy as np
import pytest

from medsegdiff.masks import resizing
from medsegdiff.masks.resizing import made_at, resize_probability


def test_resize_keeps_values_and_interpolates():
    step = np.array([[0, 1], [0, 1]], np.float32)
    np.testing.assert_allclose(resize_probability(step, (1, 4)), [[0, 0.25, 0.75, 1]], atol=1e-6)
    shrunk = resize_probability(np.tile(step, (8, 8)), (2, 4))
    assert shrunk.shape == (2, 4)
    np.testing.assert_allclose(shrunk[:, 1:3], 0.5, atol=0.05)  # antialiased, not sampled
    ones = resize_probability(np.ones((31, 17)), (64, 63))
    assert ones.dtype == np.float32
    assert ones.max() <= 1
    np.testing.assert_allclose(ones, 1, atol=1e-6)


@pytest.mark.parametrize("size", [(37, 53), (64, 64), (201, 17), (100, 300), (9, 300), (1, 1)])
def test_in_strips_the_bits_are_those_of_the_whole(size, monkeypatch):
    channels, widths = np.random.default_rng(0).random((2, 64, 64)), []

    def make(strip):
        widths.append(strip.shape[2])
        return strip.sum(axis=0)

    monkeypatch.setattr(resizing, "_PIXELS", 5 * size[0])
    made = made_at(channels, size, make, np.float32)
    np.testing.assert_array_equal(made, resize_probability(channels[0], size) + resize_probability(channels[1], size))
    assert sum(widths) == size[1] and (max(widths) <= 5 or size[0] < 64)
