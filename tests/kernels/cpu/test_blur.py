import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close, run


def blurred(x, weights, axis):
    reach = weights.shape[1] // 2
    padded = np.pad(x, [(0, 0)] * axis + [(reach, reach)] + [(0, 0)] * (3 - axis))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[1], axis=axis)
    return np.einsum("nchwt,ct->nchw", windows, weights)


@pytest.mark.parametrize("module", [operations, reference])
@pytest.mark.parametrize("shape", [(2, 3, 9, 12), (1, 2, 2, 1)])
@pytest.mark.parametrize("axis", [2, 3])
def test_values_and_gradients(module, shape, axis):
    rng = np.random.default_rng(0)
    x, weights, dy = rng.standard_normal(shape), rng.random((shape[1], 5)), rng.standard_normal(shape)
    y, (dx, dweights) = run(lambda x, w: module.blur(x, w, axis), [x, weights], dy)
    assert_close(y, blurred(x, weights, axis))
    assert_close(dx, blurred(dy, weights[:, ::-1], axis))
    for tap in range(5):
        one = np.zeros_like(weights)
        one[:, tap] = 1
        assert_close(dweights[:, tap], (blurred(x, one, axis) * dy).sum(axis=(0, 2, 3)))


def test_sums_over_pixels_lose_nothing():
    x, weights = np.ones((1, 1, 256, 256), np.float32), np.float32([[0, 0, 1]])
    x[..., 0, 0] = 2**25
    _, (_, dweights) = run(lambda x, w: operations.blur(x, w, 3), [x, weights], np.ones(x.shape))
    assert dweights[0, 1] == np.float32(2**25 + 256 * 256 - 1)


def test_a_plane_is_the_same_in_every_batch():
    x, weights = (np.float32(np.random.default_rng(1).random(shape)) for shape in ((5, 4, 16, 16), (4, 5)))
    whole = operations.blur(jt.array(x), jt.array(weights), 2).numpy()
    np.testing.assert_array_equal(operations.blur(jt.array(x[1:2]), jt.array(weights), 2).numpy(), whole[1:2])
