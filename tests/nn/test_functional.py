import math

import numpy as np
import pytest

from medsegdiff.nn import functional as F
from medsegdiff.runtime.backend import jt


def maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 2, 1, 3), (1, 1, 1, 1)])
def test_upsample_bilinear_is_the_explicit_formula(shape, factor):
    x = maps(*shape)
    expected = np.zeros((*shape[:2], shape[2] * factor, shape[3] * factor))
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            # The centre of an output pixel, in input pixels; beyond the outer centres the edge is repeated.
            y = min(max((i + 0.5) / factor - 0.5, 0), shape[2] - 1)
            z = min(max((j + 0.5) / factor - 0.5, 0), shape[3] - 1)
            top, left = math.floor(y), math.floor(z)
            bottom, right = min(top + 1, shape[2] - 1), min(left + 1, shape[3] - 1)
            upper = x[:, :, top, left] * (1 - (z - left)) + x[:, :, top, right] * (z - left)
            lower = x[:, :, bottom, left] * (1 - (z - left)) + x[:, :, bottom, right] * (z - left)
            expected[:, :, i, j] = upper * (1 - (y - top)) + lower * (y - top)
    np.testing.assert_allclose(F.upsample_bilinear(jt.array(x), factor).numpy(), expected, atol=1e-6)


def test_upsampling_again_brings_nothing_from_the_host(monkeypatch):
    x = maps(1, 2, 6, 6)
    before = F.upsample_bilinear(jt.array(x), 2).numpy()
    monkeypatch.setattr(F, "persistent", lambda array: pytest.fail("an array from the host"))
    np.testing.assert_array_equal(F.upsample_bilinear(jt.array(x), 2).numpy(), before)


def test_average_pool_is_the_mean_of_four_pixels():
    x = maps(2, 3, 4, 6)
    expected = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    np.testing.assert_allclose(F.average_pool(jt.array(x)).numpy(), expected, atol=1e-6)


def test_timestep_embedding_has_cosines_first():
    t = np.array([0, 1, 7.5, 999], np.float32)
    result = F.timestep_embedding(jt.array(t), 32).numpy()
    assert result.shape == (4, 32)
    for row, time in zip(result, t):
        angles = [time * 10000 ** (-k / 16) for k in range(16)]
        np.testing.assert_allclose(row, [*np.cos(angles), *np.sin(angles)], atol=2e-4)
    np.testing.assert_array_equal(F.timestep_embedding(jt.array(t[:2].astype(np.int32)), 32).numpy(), result[:2])


def fourier_filter(x, weight):
    """By NumPy's FFT; the imaginary parts of the first and last column are dropped before the last step."""
    spectrum = np.fft.rfft2(np.float64(x), norm="ortho") * (weight[..., 0] + 1j * weight[..., 1])
    columns = np.fft.ifft(spectrum, axis=2, norm="ortho")
    columns[..., [0, -1]] = columns[..., [0, -1]].real
    return np.fft.irfft(columns, n=x.shape[3], axis=3, norm="ortho")


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (6, 4), (5, 8), (2, 2), (16, 16)])
def test_fourier_filter_is_that_of_the_fast_transform(size):
    x, weight = maps(2, 3, *size), maps(3, size[0], size[1] // 2 + 1, 2, seed=1)
    result = F.fourier_filter(jt.array(x), jt.array(weight)).numpy()
    np.testing.assert_allclose(result, fourier_filter(x, weight), atol=2e-5)


def test_the_dropped_imaginary_parts_are_not_zero():
    """With this weight the outer columns are no longer Hermitian, so dropping them is a real choice."""
    x, weight = maps(1, 1, 4, 4), maps(1, 4, 3, 2, seed=1)
    columns = np.fft.ifft(np.fft.rfft2(x, norm="ortho") * (weight[..., 0] + 1j * weight[..., 1]), axis=2)
    assert np.abs(columns[..., [0, -1]].imag).max() > 0.05


def test_fourier_filter_of_one_changes_nothing():
    x, weight = maps(2, 3, 8, 8), np.zeros((3, 8, 5, 2), np.float32)
    weight[..., 0] = 1
    np.testing.assert_allclose(F.fourier_filter(jt.array(x), jt.array(weight)).numpy(), x, atol=1e-5)


def test_max_pool_takes_the_largest_and_gives_the_first_of_equals_the_gradient():
    x = np.float32([[1, 2, 5, 5], [4, 3, 5, 5], [-1, -2, 0, 0], [-3, -4, 0, 1]]).reshape(1, 1, 4, 4)
    var = jt.array(x)
    pooled = F.max_pool(var)
    np.testing.assert_array_equal(pooled.numpy()[0, 0], [[4, 5], [-1, 1]])
    gradient = jt.grad((pooled * jt.array(np.float32([[1, 2], [3, 4]]))).sum(), var).numpy()[0, 0]
    np.testing.assert_array_equal(gradient, [[0, 0, 2, 0], [1, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 4]])


def test_max_pool_goes_down_to_a_single_pixel():
    assert F.max_pool(jt.array(np.ones((1, 1, 2, 2), np.float32))).shape == [1, 1, 1, 1]
