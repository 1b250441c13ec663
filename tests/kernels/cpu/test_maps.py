import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import run


@pytest.fixture(params=[operations, reference], ids=["cpu", "reference"])
def where(request):
    return request.param


def maps(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (1, 64, 8, 8), (2, 1, 1, 1)])
def test_join_puts_channels_behind_channels_and_parts_their_gradients(where, shape):
    a, b = maps(*shape), maps(shape[0], 7, *shape[2:])
    dy = maps(shape[0], shape[1] + 7, *shape[2:])
    y, grads = run(where.join, [a, b], dy)
    np.testing.assert_array_equal(y, np.concatenate([a, b], axis=1))
    np.testing.assert_array_equal(grads[0], dy[:, : shape[1]])
    np.testing.assert_array_equal(grads[1], dy[:, shape[1] :])


def test_join_gives_no_gradient_to_what_wants_none():
    a, b = jt.array(maps(2, 3, 4, 4)).stop_grad(), jt.array(maps(2, 5, 4, 4))
    dy = maps(2, 8, 4, 4)
    grad = jt.grad((operations.join(a, b) * jt.array(dy)).sum(), b)
    np.testing.assert_array_equal(grad.numpy(), dy[:, 3:])


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (1, 64, 8, 8), (2, 3, 1, 33)])
def test_upsample_nearest_repeats_each_pixel_and_adds_up_their_gradients(where, shape):
    x, dy = maps(*shape), maps(*shape[:2], 2 * shape[2], 2 * shape[3])
    y, (grad,) = run(where.upsample_nearest, [x], dy)
    np.testing.assert_array_equal(y, np.repeat(np.repeat(x, 2, axis=2), 2, axis=3))
    np.testing.assert_allclose(grad, dy.reshape(*shape[:3], 2, shape[3], 2).sum((3, 5)), atol=1e-6)
