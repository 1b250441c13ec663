import numpy as np
import pytest

from medsegdiff.kernels import reference
from medsegdiff.kernels.operations import attention
from tests import numeric
from tests.kernels.compare import assert_close, run


def inputs(batch, width, tokens, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((batch, width, tokens)) for _ in range(3)]
    return arrays, rng.standard_normal((batch, width, tokens))


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 8, 1), (3, 1, 4)])
def test_values_and_gradients_by_finite_differences(shape):
    arrays, dy = inputs(*shape)
    y, grads = run(attention, arrays, dy)
    assert_close(y, numeric.attention(*arrays))
    for index, grad in enumerate(grads):

        def loss(value, index=index):
            return (numeric.attention(*arrays[:index], value, *arrays[index + 1 :]) * dy).sum()

        assert_close(grad, numeric.gradient(loss, arrays[index]), 1e-4)


@pytest.mark.parametrize("shape", [(4, 32, 64), (3, 24, 100), (2, 64, 256)])
def test_larger_maps_agree_with_the_plain_expression(shape):
    arrays, dy = inputs(*shape, seed=1)
    y, grads = run(attention, arrays, dy)
    assert_close(y, numeric.attention(*arrays))
    _, wanted = run(reference.attention, arrays, dy)
    for grad, expected in zip(grads, wanted):
        assert_close(grad, expected, 1e-4)


def test_the_plain_expression_is_attention():
    arrays, dy = inputs(2, 3, 5, seed=2)
    assert_close(run(reference.attention, arrays, dy)[0], numeric.attention(*arrays))


def test_large_scores_do_not_overflow():
    arrays, dy = inputs(2, 8, 16, seed=3)
    arrays = [array * 30 for array in arrays]
    y, grads = run(attention, arrays, dy)
    assert_close(y, numeric.attention(*arrays), 1e-3)
    assert all(np.isfinite(grad).all() for grad in grads)
