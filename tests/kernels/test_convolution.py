import numpy as np
import pytest

from medsegdiff.kernels.convolution import conv2d
from tests import numeric
from tests.kernels.compare import assert_close, run


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding", "size"),
    [
        (5, 7, 3, 1, 1, (6, 9)),
        (5, 7, 3, 2, 1, (8, 6)),
        (4, 3, 3, 2, 1, (7, 5)),
        (6, 2, 1, 1, 0, (5, 4)),
        (6, 4, 1, 2, 0, (5, 4)),
        (1, 8, 3, 1, 1, (7, 8)),
        (1, 1, 1, 1, 0, (3, 4)),
        (8, 1, 3, 1, 1, (5, 5)),
        (3, 32, 3, 1, 0, (6, 6)),
        (64, 48, 3, 1, 1, (1, 1)),
    ],
)
def test_values_and_gradients(inputs, outputs, kernel, stride, padding, size, bias):
    rng = np.random.default_rng(inputs * 100 + outputs)
    x = rng.standard_normal((3, inputs, *size))
    weight = rng.standard_normal((outputs, inputs, kernel, kernel))
    arrays = [x, weight, rng.standard_normal(outputs)][: 3 if bias else 2]
    expected = numeric.conv2d(*arrays, stride=stride, padding=padding)
    dy = rng.standard_normal(expected.shape)
    y, grads = run(lambda *inputs: conv2d(*inputs, stride=stride, padding=padding), arrays, dy)
    assert_close(y, expected)
    for grad, wanted in zip(grads, numeric.conv2d_gradients(x, weight, dy, stride, padding)):
        assert_close(grad, wanted)


def test_gradient_reaches_a_sliced_weight():
    """The first convolution is computed in two parts, of the image and of the mask."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 1, 5, 6)), rng.standard_normal((4, 3, 3, 3))
    expected = numeric.conv2d(x, weight[:, 2:], padding=1)
    dy = rng.standard_normal(expected.shape)
    y, (_, grad) = run(lambda x, weight: conv2d(x, weight[:, 2:], padding=1), [x, weight], dy)
    assert_close(y, expected)
    assert_close(grad[:, 2:], numeric.conv2d_gradients(x, weight[:, 2:], dy, padding=1)[1])
    np.testing.assert_array_equal(grad[:, :2], 0)


def test_the_independent_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 2, 5, 4)), rng.standard_normal((3, 2, 3, 3))
    dy = rng.standard_normal((2, 3, 3, 2))
    dx, dw, _ = numeric.conv2d_gradients(x, weight, dy, stride=2, padding=1)
    assert_close(dx, numeric.gradient(lambda x: (numeric.conv2d(x, weight, None, 2, 1) * dy).sum(), x), 1e-8)
    assert_close(dw, numeric.gradient(lambda w: (numeric.conv2d(x, w, None, 2, 1) * dy).sum(), weight), 1e-8)
