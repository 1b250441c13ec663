import numpy as np

from medsegdiff.kernels.logistic import sigmoid
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


def test_what_is_not_a_number_stays_so():
    y, (slope,) = run(sigmoid, [np.float32([np.nan] * 40)], 1)
    assert np.isnan(y).all()
    assert np.isnan(slope).all()
