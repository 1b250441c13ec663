"""Every kernel at the ends of float32, against float64: with subnormal numbers kept and with subnormal numbers zero."""

from functools import partial

import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.kernels.operations import Step
from medsegdiff.runtime.backend import jt
from tests import numeric
from tests.kernels.compare import run
from tests.processor import SUBNORMALS, exact, with_subnormals  # noqa: F401 (a fixture)

MANY = 20_001  # of more than 16,384 numbers, updates are threaded and vectorised; odd, so that a rest remains
SMALLEST, LARGEST = 1.2e-38, 3.4e38
SCALES = [0.0, 1e-44, 1e-39, 1e-30, 1e-20, 1e-10, 1.0, 88.0, 104.0, 1e4, 1e10, 1e19, 1e20, 1e30]


pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture
def compute(flush):
    """Call a function with its arguments while subnormal numbers are zero, or are kept."""
    return partial(with_subnormals, flush)


def within(actual, expected, tolerance):
    """Equal up to `tolerance` of the largest value, to what is lost where subnormals are zero, and to float32's end."""
    expected = np.asarray(expected, np.float64)
    assert np.isfinite(actual).all()
    slack = tolerance * np.abs(expected).max() + 1e-36
    assert np.abs(actual - expected).max() <= slack


def updated(function, arrays, step):
    values = [jt.array(np.float32(array)) for array in arrays]
    found = function(*values, step)
    return [value.numpy() for value in found or (values[0], *values[2:])]


def of_one(*arrays_and_step):
    *arrays, step = arrays_and_step
    operations.adamw(*([array] for array in arrays), step)


@SUBNORMALS
@pytest.mark.parametrize("function", [of_one, reference.adamw])
@pytest.mark.parametrize("size", [7, MANY])
@pytest.mark.parametrize("scale", [s for s in SCALES if s < 1e19])
def test_adamw(compute, function, size, scale):
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal(size), scale * rng.standard_normal(size)
    p, g, mean, square = (np.float32(a) for a in (p, g, 0.1 * g, 0.001 * g * g))
    step = Step(scale=1.0, keep=0.99, rate=0.02, correction=1.5, beta1=0.9, beta2=0.999, eps=1e-8)
    found = compute(updated, function, (p, g, mean, square), step)
    p, g, mean, square = (np.float64(a) for a in (p, g, mean, square))
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
    moved = 0.99 * p - 0.02 * mean / (np.sqrt(square) * 1.5 + 1e-8)
    within(found[1], mean, 1e-6)
    within(found[2], square, 1e-6)
    # Of a square that float32 has not, the root is at most 1e-19, beside 1e-8.
    within(found[0], moved, 1e-5)


def test_adamw_does_not_depend_on_what_threads_take_for_zero():
    rng = np.random.default_rng(0)
    arrays = [np.float32(10.0 ** rng.uniform(-45, 0, MANY)) for _ in range(4)]
    step = Step(scale=1.0, keep=1.0, rate=1e-3, correction=1.0, beta1=0.9, beta2=0.999, eps=1e-8)
    found = [with_subnormals(flush, updated, of_one, arrays, step) for flush in (True, False)]
    for one, other in zip(*found):
        assert one.tobytes() == other.tobytes()


@SUBNORMALS
@pytest.mark.parametrize("scale", [*SCALES, 1e38])
@pytest.mark.parametrize("size", [1, 33, MANY])
def test_sum_of_squares(compute, scale, size):
    values = np.float32(scale * np.random.default_rng(1).uniform(0.5, 1, size))
    (found,) = compute(lambda: operations.sum_of_squares([jt.array(values)]).numpy())
    wanted = (values.astype(np.float64) ** 2).sum()
    if 0 < scale < SMALLEST:
        assert found in (0, pytest.approx(wanted, rel=1e-6))
    else:
        assert found == pytest.approx(wanted, rel=1e-12)


# The plain expression, which is for GPUs, squares in float32.
@SUBNORMALS
@pytest.mark.parametrize(
    ("function", "scale"),
    [(operations.group_norm, scale) for scale in SCALES]
    + [(reference.group_norm, scale) for scale in SCALES if scale < 1e19],
)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("size", [1, 7, 33])
def test_group_norm(compute, function, silu, size, scale):
    rng = np.random.default_rng(2)
    x = np.float32(scale * rng.standard_normal((2, 6, size, 3)))
    weight, bias = np.float32(rng.standard_normal((2, 6))), np.float32(rng.standard_normal((2, 6)))
    dy = np.float32(rng.standard_normal(x.shape))
    y, grads = compute(run, lambda *a: function(*a, 2, silu), (x, weight, bias), dy)
    within(y, numeric.group_norm(x, weight, bias, 2, silu), 1e-5)
    dx = numeric.group_norm_gradient(x, weight, bias, 2, silu, dy)
    within(grads[0], dx, 1e-4)


def before_a_convolution(x, weight, bias, groups, silu):
    """The norm as a convolution that changes nothing takes maps in."""
    channels = x.shape[1]
    same = jt.array(np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1))
    return operations.conv2d(x, same, norm=operations.Norm(weight, bias, groups, silu))


# What a norm gives is at most the root of its group's size: only its weight and bias make it large.
@SUBNORMALS
@pytest.mark.parametrize("function", [operations.group_norm, before_a_convolution])
@pytest.mark.parametrize("scale", [50.0, 88.0, 89.0, 104.0, 200.0, 1e4, 1e20, 1e30])
@pytest.mark.parametrize("size", [5, 64])
def test_silu_of_large_numbers(compute, function, scale, size):
    rng = np.random.default_rng(3)
    x, dy = (np.float32(rng.standard_normal((1, 16, size, size))) for _ in range(2))
    weight, bias = np.float32([[scale, -scale, 1, 0] * 4]), np.float32([[0, 0, -scale, scale] * 4])
    y, grads = compute(run, lambda *a: function(*a, 8, True), (x, weight, bias), dy)
    expected = numeric.group_norm(x, weight, bias, 8, True)
    within(y, expected, 1e-5)
    z = np.maximum(numeric.group_norm(x, weight, bias, 8, False), -700)
    slope = np.abs(expected) + 1 / (1 + np.exp(-z))  # at most; z has an error, float32's of `scale`
    assert (np.abs(y - expected) <= 1e-6 * (np.abs(expected) + (4 + scale) * slope) + 1e-35).all()
    dx = numeric.group_norm_gradient(x, weight, bias, 8, True, dy)
    within(grads[0], dx, 1e-4)


@SUBNORMALS
@pytest.mark.parametrize("value", [0.0, 1e-39, 1.0, -7.5, 1e20, -1e30])
@pytest.mark.parametrize("function", [operations.group_norm, reference.group_norm])
def test_a_constant_has_its_bias(compute, value, function):
    x, weight, bias = np.full((1, 4, 5, 3), value, np.float32), np.ones((1, 4)), np.array([[1.0, 2, 3, 4]])
    y, grads = compute(run, lambda *a: function(*a, 2), (x, weight, bias), np.ones_like(x))
    rounding = abs(value) * 1e-6 / np.sqrt(1e-5) if function is reference.group_norm else 0
    assert np.abs(y - bias.reshape(1, 4, 1, 1)).max() <= 1e-6 + rounding
    assert all(np.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("scale", [1e30, 4e35, 1e37])
def test_sums_that_overflow_both_ways_are_taken_again(scale):
    x = np.float32(scale) * np.where(np.arange(4) % 2, -1, 1).astype(np.float32).reshape(1, 4, 1, 1)
    x = np.broadcast_to(x, (1, 4, 64, 64))
    ones = np.ones((1, 4))
    y, _ = run(lambda *a: operations.group_norm(*a, 2), (x, ones, 0 * ones), np.ones_like(x))
    within(y, numeric.group_norm(x, ones, 0 * ones, 2), 1e-5)


@SUBNORMALS
@pytest.mark.parametrize("scale", SCALES)
def test_batch_norm(compute, scale):
    rng = np.random.default_rng(4)
    x, dy = np.float32(scale * rng.standard_normal((3, 4, 5, 7))), np.float32(rng.standard_normal((3, 4, 5, 7)))
    weight, bias = np.float32(rng.standard_normal((2, 4)))
    y, grads = compute(run, lambda *a: operations.batch_norm(*a)[0], (x, weight, bias), dy)
    turned, rows = x.transpose(1, 0, 2, 3).reshape(1, 4, 3, 35), (weight.reshape(1, 4), bias.reshape(1, 4))

    def back(a):
        return a.reshape(4, 3, 5, 7).transpose(1, 0, 2, 3)

    within(y, back(numeric.group_norm(turned, *rows, 4)), 1e-5)
    pull = dy.transpose(1, 0, 2, 3).reshape(turned.shape)
    within(grads[0], back(numeric.group_norm_gradient(turned, *rows, 4, False, pull)), 1e-4)


@SUBNORMALS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("silu", [False, True])
def test_what_is_not_finite_shows_and_stays_in_its_group(compute, bad, silu):
    rng = np.random.default_rng(5)
    x, ones = np.float32(rng.standard_normal((1, 4, 40, 33))), np.ones((1, 4), np.float32)
    healthy = numeric.group_norm(x, ones, 0 * ones, 2, silu)
    x[0, 1, 20, 7] = bad
    y, grads = compute(run, lambda *a: operations.group_norm(*a, 2, silu), (x, ones, 0 * ones), np.ones_like(x))
    assert not np.isfinite(y[0, 1, 20, 7])
    assert not np.isfinite(grads[0][0, 1]).any()
    assert np.abs(y[0, 2:] - healthy[0, 2:]).max() < 1e-5


@SUBNORMALS
@pytest.mark.parametrize("scale", [0.0, 1e-39, 1e-20, 1.0, 30.0, 1e4, 1e9, 1e18])
@pytest.mark.parametrize("tokens", [1, 17, 64])
def test_attention(compute, scale, tokens):
    rng = np.random.default_rng(6)
    q, k, v, dy = (np.float32(rng.standard_normal((2, 5, tokens))) for _ in range(4))
    q, k = np.float32(scale * q), np.float32(scale * k)
    y, grads = compute(run, operations.attention, (q, k, v), dy)
    within(y, numeric.attention(q, k, v), 1e-5 + 1e-6 * min(scale, 30) ** 2)  # float32 of large scores
    assert all(np.isfinite(grad).all() for grad in grads)


@SUBNORMALS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_to_what_is_not_finite_shows(compute, bad):
    q, k, v = (np.random.default_rng(7).standard_normal((1, 4, 19)) for _ in range(3))
    k[0, 0, 5] = bad
    y, _ = compute(run, operations.attention, (q, k, v), np.ones_like(v))
    assert not np.isfinite(y).all()


@SUBNORMALS
@pytest.mark.parametrize("scale", [0.0, 1e-39, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("size", [5, 30])
def test_convolution(compute, scale, size):
    rng = np.random.default_rng(8)
    x, weight = np.float32(scale * rng.standard_normal((1, 33, size, size))), rng.standard_normal((35, 33, 3, 3)) / 20
    weight, dy = np.float32(weight), np.float32(rng.standard_normal((1, 35, size, size)))
    y, grads = compute(run, lambda *a: operations.conv2d(*a, padding=1), (x, weight), dy)
    within(y, numeric.conv2d(x, weight, padding=1), 2e-5)
    dx, dw, _ = numeric.conv2d_gradients(x, weight, dy, padding=1)
    within(grads[0], dx, 2e-5)
    within(grads[1], dw, 2e-5)


@SUBNORMALS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("size", [5, 30])
def test_a_convolution_of_what_is_not_finite_shows_it(compute, bad, size):
    rng = np.random.default_rng(9)
    x, weight = np.float32(rng.standard_normal((2, 33, size, size))), np.float32(rng.standard_normal((35, 33, 3, 3)))
    x[1, 3, 2, 2] = bad
    y, _ = compute(run, lambda *a: operations.conv2d(*a, padding=1), (x, weight), np.ones((2, 35, size, size)))
    assert not np.isfinite(y[1, :, 2, 2]).any()
    assert np.isfinite(y[0]).all()


@SUBNORMALS
@pytest.mark.parametrize("scale", [0.0, 1e-39, 1e-20, 1.0, 1e20, 1e30])
def test_linear(compute, scale):
    rng = np.random.default_rng(10)
    x, weight, bias = scale * rng.standard_normal((3, 17)), rng.standard_normal((5, 17)), rng.standard_normal(5)
    x, weight, bias, dy = (np.float32(a) for a in (x, weight, bias, rng.standard_normal((3, 5))))
    y, grads = compute(run, operations.linear, (x, weight, bias), dy)
    within(y, x.astype(np.float64) @ weight.T + bias, 1e-6)
    within(grads[0], dy.astype(np.float64) @ weight, 1e-6)
    within(grads[1], dy.astype(np.float64).T @ x, 1e-6)
