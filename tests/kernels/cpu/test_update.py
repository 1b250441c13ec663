import numpy as np
import pytest

from medsegdiff.kernels import reference
from medsegdiff.kernels.operations import Step, adamw, approach, sum_of_squares
from medsegdiff.runtime.backend import jt

STEP = Step(scale=0.5, keep=0.99, rate=0.02, correction=1.5, beta1=0.9, beta2=0.999, eps=1e-8)


def in_place(p, g, m, v, step):
    adamw([p], [g], [m], [v], step)
    assert not p.is_stop_grad() and m.is_stop_grad() and v.is_stop_grad()
    return p, m, v


@pytest.mark.parametrize("function", [in_place, reference.adamw])
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
    found = sum_of_squares([jt.array(values)])
    assert (found.dtype, found.shape) == ("float64", [1])
    np.testing.assert_allclose(found.numpy()[0], (values.astype(np.float64) ** 2).sum(), rtol=1e-6)


def test_an_average_approaches_in_place():
    average, value = (np.random.default_rng(seed).standard_normal((9, 2000)).astype(np.float32) for seed in (0, 1))
    held = jt.array(average)
    approach([held], [jt.array(value)], 0.25)
    np.testing.assert_allclose(held.numpy(), 0.75 * average + 0.25 * value, rtol=1e-5, atol=1e-6)


def test_memory_is_kept_and_old_graphs_are_let_go():
    held = [jt.random((100, 100)).stop_grad() for _ in range(3)]
    before = None
    for _ in range(5):
        adamw(held[:1], [jt.random((100, 100))], held[1:2], held[2:], STEP)
        approach(held[1:2], held[2:], 0.1)
        jt.sync_all()
        found = [value.data.ctypes.data for value in held], jt.number_of_lived_vars(), jt.number_of_lived_ops()
        assert before in (None, found)
        before = found
