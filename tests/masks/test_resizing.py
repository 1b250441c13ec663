import numpy as np

from medsegdiff.masks.resizing import resize_probability


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
