import numpy as np
import pytest

from medsegdiff.kernels.logistic import sigmoid, silu
from tests import numeric
from tests.kernels.compare import run
from tests.processor import SUBNORMALS, with_subnormals

VALUES = np.float32([0, -0.0, 1e-39, 1e-20, 1, -1, 5, -17, 30, -31, 40, -60, 87, 104, -104, 1e4, 1e20, -1e30])


@SUBNORMALS
def test_values_and_slopes_are_exact_to_float32(flush):
    y, (slope,) = with_subnormals(flush, run, sigmoid, [VALUES], 1)
    wanted = numeric.sigmoid(VALUES)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1.2e-38)
    np.testing.assert_allclose(slope, wanted * (1 - wanted), rtol=1e-5, atol=1e-7)


@SUBNORMALS
def test_silu(flush):
    y, (slope,) = with_subnormals(flush, run, silu, [VALUES], 1)
    s = numeric.sigmoid(VALUES)
    np.testing.assert_allclose(y, VALUES * s, rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(slope, s * (1 + VALUES * numeric.sigmoid(-VALUES)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [sigmoid, silu])
def test_what_is_not_a_number_stays_so(function):
    y, (slope,) = run(function, [np.float32([np.nan] * 40)], 1)
    assert np.isnan(y).all()
    assert np.isnan(slope).all()
