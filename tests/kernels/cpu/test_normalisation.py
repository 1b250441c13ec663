import numpy as np
import pytest

from medsegdiff.kernels import reference
from medsegdiff.kernels.operations import batch_norm, group_norm
from medsegdiff.runtime.backend import jt
from tests import numeric
from tests.kernels.compare import assert_close, run


def inputs(shape, seed=0):
    """x far from mean 0 and deviation 1, and a weight and a bias that differ between the samples."""
    rng = np.random.default_rng(seed)
    x = 2 + 3 * rng.standard_normal(shape)
    return [x, rng.standard_normal(shape[:2]), rng.standard_normal(shape[:2])], rng.standard_normal(shape)


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
@pytest.mark.parametrize(("groups", "shape"), [(2, (3, 6, 3, 4)), (32, (2, 32, 1, 3))])
def test_values_and_gradients_by_finite_differences(groups, shape, silu):
    arrays, dy = inputs(shape)
    y, grads = run(lambda *given: group_norm(*given, groups, silu), arrays, dy)
    assert_close(y, numeric.group_norm(*arrays, groups, silu))
    for index, grad in enumerate(grads):

        def loss(value, index=index):
            changed = [*arrays[:index], value, *arrays[index + 1 :]]
            return (numeric.group_norm(*changed, groups, silu) * dy).sum()

        assert_close(grad, numeric.gradient(loss, arrays[index]), 1e-4)


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
@pytest.mark.parametrize(("groups", "shape"), [(32, (2, 96, 16, 16)), (32, (1, 64, 33, 7)), (2, (4, 10, 9, 11))])
def test_larger_maps_agree_with_the_plain_expression(groups, shape, silu):
    arrays, dy = inputs(shape, seed=1)
    y, grads = run(lambda *given: group_norm(*given, groups, silu), arrays, dy)
    assert_close(y, numeric.group_norm(*arrays, groups, silu))
    _, wanted = run(lambda *given: reference.group_norm(*given, groups, silu), arrays, dy)
    for grad, expected in zip(grads, wanted):
        assert_close(grad, expected, 1e-4)


def test_the_plain_expression_is_group_normalisation():
    arrays, dy = inputs((3, 6, 3, 4), seed=2)
    for silu in (False, True):
        y, _ = run(lambda *given, silu=silu: reference.group_norm(*given, 2, silu), arrays, dy)
        assert_close(y, numeric.group_norm(*arrays, 2, silu))


def test_a_large_mean_costs_no_precision():
    (x, weight, bias), dy = inputs((2, 64, 16, 16), seed=3)
    x = np.float32(x + 300)
    y, _ = run(lambda *given: group_norm(*given, 32), [x, weight, bias], dy)
    assert_close(y, numeric.group_norm(x, weight, bias, 32), 1e-3)


def test_a_constant_map_gives_the_bias():
    (_, weight, bias), dy = inputs((2, 64, 4, 4))
    y, grads = run(lambda *given: group_norm(*given, 32), [np.full((2, 64, 4, 4), 0.5), weight, bias], dy)
    np.testing.assert_allclose(y, np.broadcast_to(bias[:, :, None, None], y.shape), atol=1e-4)
    assert all(np.isfinite(grad).all() for grad in grads)


def test_batch_norm_is_the_formula_with_its_gradient():
    rng = np.random.default_rng(5)
    x, weight, bias, pull = (
        rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 5, 2), (4,), (4,), (3, 4, 5, 2))
    )
    x = x + 3

    def exact(x):
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * weight[:, None, None] + bias[:, None, None]

    variables = [jt.array(a) for a in (x, weight, bias)]
    y, mean, variance = batch_norm(*variables)
    np.testing.assert_allclose(mean.numpy(), x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance.numpy(), x.var((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(y.numpy(), exact(x.astype(np.float64)), atol=2e-6)
    dx, dw, db = (g.numpy() for g in jt.grad((y * jt.array(pull)).sum(), variables))
    normed = (exact(x.astype(np.float64)) - bias[:, None, None]) / weight[:, None, None]
    np.testing.assert_allclose(dw, (pull * normed).sum((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(db, pull.sum((0, 2, 3)), rtol=1e-4, atol=1e-5)
    step = np.zeros_like(x, np.float64)
    step[1, 2, 3, 1] = 1e-5
    slope = ((exact(x + step) - exact(x - step)) * pull).sum() / 2e-5
    np.testing.assert_allclose(dx[1, 2, 3, 1], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
def test_samples_may_share_weight_and_bias(silu):
    (x, weight, bias), dy = inputs((3, 6, 3, 4))
    y, grads = run(lambda *given: group_norm(*given, 2, silu), [x, weight[:1], bias[:1]], dy)
    each = [np.tile(value[:1], (3, 1)) for value in (weight, bias)]
    same, of_each = run(lambda *given: group_norm(*given, 2, silu), [x, *each], dy)
    np.testing.assert_array_equal(y, same)
    for grad, other in zip(grads, of_each):
        assert_close(grad, other if len(grad) == 3 else other.sum(axis=0, keepdims=True))


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_may_be_empty(rows):
    y = group_norm(jt.zeros((0, 32, 4, 4)), jt.ones((rows, 32)), jt.zeros((rows, 32)), 32)
    assert y.numpy().shape == (0, 32, 4, 4)
