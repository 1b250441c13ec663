import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.scaling import EIGHT_BITS, PERCENTILE, Z_SCORE, check_scaling, scale, to_sixteen_bits, window


def test_8_bits():
    np.testing.assert_array_equal(scale(np.array([[0, 51, 255]]), EIGHT_BITS), np.float32([[0, 0.2, 1]]))


def test_a_window_is_the_same_for_all():
    assert window(-160, 240) == "-160..240"
    values = np.array([-1000, -160, 40, 240, 3000, np.nan])[:, None]
    np.testing.assert_allclose(scale(values, "-160..240")[:, 0], [0, 0, 0.5, 1, 1, 0])


def test_volumes_are_normalised_one_by_one_and_channel_by_channel():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(100, 5, 5000), rng.normal(3000, 200, 5000)], axis=-1)
    values[:2000] = 0  # no part of the patient
    for scaling, low, high in ((Z_SCORE, 0.5 - 1 / 8, 0.5 + 1 / 8), (PERCENTILE, 0.3, 0.7)):
        found = scale(values, scaling)[2000:]
        quantiles = np.quantile(found, (0.158, 0.842), axis=0)
        np.testing.assert_allclose(quantiles, [[low] * 2, [high] * 2], atol=0.03)
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("scaling", [Z_SCORE, PERCENTILE])
def test_images_of_one_value_or_of_none_are_finite(scaling):
    for value in (0, 7, np.nan):
        assert np.isfinite(scale(np.full((3, 4, 1), value, np.float32), scaling)).all()


def test_16_bits_keep_what_12_bits_had():
    values = np.arange(4096)[:, None]
    assert len(np.unique(to_sixteen_bits(scale(values, window(0, 4095))))) == 4096


@pytest.mark.parametrize("scaling", ["", "9-bit", "5..5", "7..2", "-160", "a..b"])
def test_what_is_no_scaling_is_refused(scaling):
    with pytest.raises(InputError, match=f"scaling {scaling}: must be 8-bit, z-score, percentile or a window"):
        check_scaling(scaling)
