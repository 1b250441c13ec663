import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close


def given(hidden, rows):
    rng = np.random.default_rng(0)
    shapes = [(hidden, 2, 3, 3), (hidden, hidden, 3, 3), (hidden, hidden, 3, 3), (1, hidden, 1, 1)]
    layers = [(rng.standard_normal(shape) / hidden**0.5, rng.standard_normal(shape[:1])) for shape in shapes]
    modulation = rng.standard_normal((rows, 6 * hidden)) / 2
    return jt.array(np.float32(modulation)), [tuple(jt.array(np.float32(value)) for value in both) for both in layers]


@pytest.mark.parametrize("hidden, tokens", [(32, 64), (32, 16), (5, 9), (4, 1)])
def test_gains_are_those_of_the_plain_expression(hidden, tokens):
    modulation, layers = given(hidden, 2)
    found = operations.band_pass(modulation, layers, tokens).numpy()
    assert 0 < found.min() < found.max() < 1
    assert_close(found, reference.band_pass(modulation, layers, tokens).numpy())


def test_a_gain_is_the_same_in_every_batch():
    modulation, layers = given(32, 5)
    together = operations.band_pass(modulation, layers, 64).numpy()
    for rows in (slice(0, 1), slice(1, 4)):
        np.testing.assert_array_equal(operations.band_pass(modulation[rows], layers, 64).numpy(), together[rows])
