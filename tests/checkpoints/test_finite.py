import numpy as np
import pytest

from medsegdiff.checkpoints.finite import broken


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_array_that_is_not_finite_is_named_and_the_others_are_counted(value):
    sound, spoilt = np.float32([3e38, 0, -1e-45]), np.float32([0, value])
    assert broken({}) == broken({"a": sound, "b": np.int64([1])}) == ""
    assert broken({"a": sound, "b": spoilt}) == "b is not finite"
    assert broken({"c": spoilt, "a": sound, "b": spoilt, "d": spoilt}) == "c (and 2 more) is not finite"
