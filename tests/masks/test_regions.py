import numpy as np
import pytest

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
