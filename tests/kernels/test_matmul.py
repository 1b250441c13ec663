import numpy as np

from medsegdiff.kernels.matmul import matmul
from tests.kernels.compare import assert_close, run


def test_value_and_gradients():
    rng = np.random.default_rng(0)
    a, b, dy = (rng.standard_normal(shape) for shape in ((5, 7), (7, 3), (5, 3)))
    y, (da, db) = run(matmul, [a, b], dy)
    assert_close(y, a @ b)
    assert_close(da, dy @ b.T)
    assert_close(db, a.T @ dy)
