import numpy as np
import pytest

from medsegdiff.kernels.update import Step, adamw, adamw_reference, sum_of_squares
from medsegdiff.runtime.backend import jt

STEP = Step(scale=0.5, keep=0.99, rate=0.02, correction=1.5, beta1=0.9, beta2=0.999, eps=1e-8)


@pytest.mark.parametrize("function", [adamw, adamw_reference])
@pytest.mark.parametrize("shape", [(3,), (5, 7, 3, 3), (40, 1000)])
def test_a_step_is_the_formula(function, shape):
    rng = np.random.default_rng(0)
    p, g, m = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    v = rng.random(shape).astype(np.float32)
    results = function(*(jt.array(value) for value in (p, g, m, v)), STEP)
    g = 0.5 * g.astype(np.float64)
    mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    moved = 0.99 * p - 0.02 * mean / (np.sqrt(square) * 1.5 + 1e-8)
    for result, wanted in zip(results, (moved, mean, square)):
        np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (1025,), (7, 9, 1111)])
def test_squares_are_summed(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found = sum_of_squares(jt.array(values))
    assert (found.dtype, found.shape) == ("float64", [1])
    np.testing.assert_allclose(found.numpy()[0], (values.astype(np.float64) ** 2).sum(), rtol=1e-6)
