import numpy as np

from medsegdiff.runtime.backend import jt


def run(function, arrays, dy):
    """The value of `function` and the gradients of sum(value * dy) with respect to every one of `arrays`."""
    inputs = [jt.array(np.float32(array)) for array in arrays]
    y = function(*inputs)
    grads = jt.grad((y * jt.array(np.float32(dy))).sum(), inputs)
    jt.sync([y, *grads])
    return y.numpy(), [grad.numpy() for grad in grads]


def assert_close(actual, expected, tolerance=2e-5):
    """The largest error is small beside the largest value."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error, size = np.abs(actual - expected).max(), np.abs(expected).max()
    assert error <= tolerance * max(size, 1e-3), f"largest error {error:.3g} beside values up to {size:.3g}"
