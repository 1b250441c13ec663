import numpy as np
import pytest
from scipy import ndimage

from medsegdiff.masks.regions import one_region_each


def labels(*rows):
    return np.array([[int(digit) for digit in row] for row in rows], np.uint8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            ["1100000", "1100011", "0000001"], ["1100000", "1100000", "0000000"], id="the largest region stays"
        ),
        pytest.param(["1010000", "0100011"], ["1010000", "0100000"], id="corners connect"),
        pytest.param(["1100011", "0000000"], ["1100000", "0000000"], id="of equals the first stays"),
        pytest.param(["01110", "01010", "01110"], ["01110", "01110", "01110"], id="a hole is filled"),
        pytest.param(["00100", "01010", "00100"], ["00100", "01110", "00100"], id="a diagonal ring has a hole"),
        pytest.param(["11111", "10001", "10001"], ["11111", "10001", "10001"], id="a bay at the border is none"),
        pytest.param(
            ["1111111", "1000201", "1020001", "1111111"],
            ["1111111", "1111211", "1111111", "1111111"],
            id="a class inside stays, its smaller region becomes a hole",
        ),
        pytest.param(
            ["1111111", "1000001", "1022201", "1020201", "1022201", "1000001", "1111111"],
            ["1111111", "1111111", "1122211", "1122211", "1122211", "1111111", "1111111"],
            id="the closer class fills",
        ),
        pytest.param(["000", "000"], ["000", "000"], id="nothing stays nothing"),
        pytest.param(["222", "222"], ["222", "222"], id="a full picture"),
    ],
)
def test_of_each_class_one_region_without_holes_remains(given, expected):
    given = labels(*given)
    before = given.copy()
    found = one_region_each(given)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels(*expected))
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(one_region_each(found), found)


@pytest.mark.parametrize("shape", [(40, 60), (1, 9), (12, 14, 16)])
@pytest.mark.parametrize("share", [0.45, 0.6])
def test_what_is_filled_is_what_scipy_fills(shape, share):
    given = (np.random.default_rng(len(shape)).random(shape) < share).astype(np.uint8)
    regions, _ = ndimage.label(given, np.ones((3,) * given.ndim))
    largest = regions == 1 + np.bincount(regions.ravel())[1:].argmax()
    np.testing.assert_array_equal(one_region_each(given), ndimage.binary_fill_holes(largest))


def test_nothing_has_no_regions():
    assert one_region_each(np.zeros((0, 4), np.uint8)).shape == (0, 4)
