import math

import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close, run


def matrices(kinds, rows, inner, columns, count=3):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((count, rows, inner)), rng.standard_normal((count, inner, columns))
    turned = [x if kind == "N" else x.transpose(0, 2, 1) for x, kind in zip((a, b), kinds)]
    return a, b, turned


@pytest.mark.parametrize("module", [operations, reference])
@pytest.mark.parametrize("kinds", ["NN", "NT", "TN", "TT"])
def test_values_and_gradients(module, kinds):
    a, b, given = matrices(kinds, 5, 7, 4)
    dy = np.random.default_rng(1).standard_normal((3, 5, 4))
    y, gradients = run(lambda x, z: module.product(x, z, kinds), given, dy)
    assert_close(y, a @ b)
    wanted = dy @ b.transpose(0, 2, 1), a.transpose(0, 2, 1) @ dy
    for gradient, full, kind in zip(gradients, wanted, kinds):
        assert_close(gradient, full if kind == "N" else full.transpose(0, 2, 1))


@pytest.mark.parametrize("module", [operations, reference])
def test_one_matrix_for_all(module):
    rng = np.random.default_rng(0)
    weight, x, bias, residual = (
        np.float32(rng.standard_normal(shape)) for shape in ((6, 5), (3, 5, 7), (6,), (3, 6, 7))
    )
    given = [jt.array(value) for value in (weight, x, bias, residual)]
    y = weight @ x
    z = y + bias[:, None]
    assert_close(module.mixed(*given[:2]).numpy(), y)
    assert_close(module.mixed(*given[:2], None, given[3]).numpy(), y + residual)
    assert_close(module.mixed(*given[:3], gelu=True).numpy(), z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2)
    assert_close(module.mixed(*given).numpy(), z + residual)


def test_a_product_is_the_same_whatever_else_is_computed():
    a, b, _ = matrices("NN", 64, 512, 48, count=9)
    a, b = np.float32(a), np.float32(b)
    products = operations.product(jt.array(a), jt.array(b)).numpy()
    mixtures = operations.mixed(jt.array(a[0]), jt.array(b)).numpy()
    for rows in (slice(0, 1), slice(1, 4), slice(8, 9)):
        np.testing.assert_array_equal(operations.product(jt.array(a[rows]), jt.array(b[rows])).numpy(), products[rows])
        np.testing.assert_array_equal(operations.mixed(jt.array(a[0]), jt.array(b[rows])).numpy(), mixtures[rows])
