import numpy as np
import pytest

from medsegdiff.kernels import reference
from medsegdiff.kernels.operations import linear
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close, run


@pytest.mark.parametrize("function", [linear, reference.linear])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4, 7)])
def test_value_and_gradients(function, shape):
    rng = np.random.default_rng(0)
    x, weight, bias, dy = (rng.standard_normal(size) for size in (shape, (3, 7), (3,), (*shape[:-1], 3)))
    y, (dx, dweight) = run(function, [x, weight], dy)
    assert_close(y, x @ weight.T)
    assert_close(dx, dy @ weight)
    assert_close(dweight, dy.reshape(-1, 3).T @ x.reshape(-1, 7))
    shifted, (*same, dbias) = run(function, [x, weight, bias], dy)
    assert_close(shifted, x @ weight.T + bias)
    assert_close(dbias, dy.reshape(-1, 3).sum(0))
    for gradient, wanted in zip(same, (dx, dweight)):
        np.testing.assert_array_equal(gradient, wanted)


@pytest.mark.parametrize(("shape", "outputs"), [((20, 512), 256), ((20, 128), 512), ((16, 8, 16, 16), 9)])
def test_a_sample_is_the_same_in_every_batch(shape, outputs):
    """Plain products of 512 numbers are not: the number of rows decides how oneDNN adds them up."""
    rng = np.random.default_rng(0)
    x, weight = np.float32(rng.standard_normal(shape)), jt.array(np.float32(rng.standard_normal((outputs, shape[-1]))))
    whole = linear(jt.array(x), weight).numpy()
    for rows in (slice(0, 1), slice(1, 4), slice(3, 4)):
        np.testing.assert_array_equal(linear(jt.array(x[rows]), weight).numpy(), whole[rows])
