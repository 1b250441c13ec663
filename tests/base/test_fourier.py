import numpy as np

from medsegdiff.base.fourier import fourier_matrix, half_spectrum


def test_the_matrix_is_the_orthonormal_transform_and_its_transposed_the_inverse():
    parts = np.random.default_rng(0).standard_normal((2, 24))
    found = parts.reshape(-1) @ fourier_matrix(4, 6)
    spectrum = np.fft.fft2((parts[0] + 1j * parts[1]).reshape(4, 6), norm="ortho").reshape(-1)
    np.testing.assert_allclose(found[:24] + 1j * found[24:], spectrum, atol=1e-5)
    np.testing.assert_allclose(found @ fourier_matrix(4, 6).T, parts.reshape(-1), atol=1e-5)


def test_half_a_spectrum_has_all_of_a_real_map():
    x = np.random.default_rng(1).standard_normal((4, 6))
    along_h, along_w, fold = half_spectrum(4, 6)
    half = np.exp(-1j * along_h) @ x @ np.exp(-1j * along_w)
    np.testing.assert_allclose(half, np.fft.rfft2(x), atol=1e-12)
    np.testing.assert_allclose(
        ((np.exp(1j * along_h) @ half) @ (fold * np.exp(1j * along_w).T)).real / 24, x, atol=1e-12
    )
