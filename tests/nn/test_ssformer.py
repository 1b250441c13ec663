import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.ssformer import BandPass, CrossAttention, Mix, fourier_matrix, spectral_affinity
from medsegdiff.runtime.backend import jt
from tests.nn.filled import fill

SIZE, HEADS, D = (4, 6), 2, 5
N = SIZE[0] * SIZE[1]


def complex_maps(seed=0):
    """(2, HEADS, D, N) complex: queries or keys by head."""
    parts = np.random.default_rng(seed).standard_normal((2, 2, HEADS, D, N))
    return parts[0] + 1j * parts[1]


def packed(maps):
    both = np.concatenate([maps.real, maps.imag], axis=-1)
    return jt.array(both.reshape(2, HEADS * D, 2 * N).astype(np.float32))


def wanted(query, key, act):
    """The affinity as the paper writes it, by NumPy's FFT."""

    def transform(x, fft):
        return fft(x.reshape(*x.shape[:-1], *SIZE), norm="ortho").reshape(x.shape)

    q, k = (transform(x, np.fft.fft2) for x in (query, key))
    scores = act(np.einsum("ahdi,ahdj->ahij", q, k) / np.sqrt(D))
    once = transform(scores, np.fft.ifft2)
    return transform(once.swapaxes(2, 3), np.fft.ifft2).swapaxes(2, 3).real


def affinity(query, key, **options):
    found = spectral_affinity(packed(query), packed(key), SIZE, HEADS, **options).numpy()
    return found.reshape(2, HEADS, N, N).swapaxes(2, 3)


def test_the_matrix_is_the_discrete_fourier_transform_and_its_transposed_the_inverse():
    x = complex_maps()[0, 0, 0]
    row = np.concatenate([x.real, x.imag])
    spectrum = np.fft.fft2(x.reshape(SIZE), norm="ortho").reshape(-1)
    found = row @ fourier_matrix(*SIZE)
    np.testing.assert_allclose(found[:N] + 1j * found[N:], spectrum, atol=1e-5)
    np.testing.assert_allclose(found @ fourier_matrix(*SIZE).T, row, atol=1e-5)


def test_with_a_gain_of_one_and_real_weights_it_is_the_plain_product():
    query, key = complex_maps(0).real + 0j, complex_maps(1).real + 0j
    plain = np.einsum("ahdi,ahdj->ahij", query.real, key.real) / np.sqrt(D)
    np.testing.assert_allclose(affinity(query, key, gain=jt.ones((1, 1, N, N))), plain, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_gain_acts_on_each_entry_of_the_spectrum(rows):
    gain = np.random.default_rng(2).random((rows, 1, N, N))
    found = affinity(complex_maps(0), complex_maps(1), gain=jt.array(gain.astype(np.float32)))
    np.testing.assert_allclose(found, wanted(complex_maps(0), complex_maps(1), lambda m: m * gain), atol=5e-5)


def test_the_sine_is_of_real_and_imaginary_part():
    found = affinity(complex_maps(0), complex_maps(1))
    act = wanted(complex_maps(0), complex_maps(1), lambda m: np.sin(m.real) + 1j * np.sin(m.imag))
    np.testing.assert_allclose(found, act, atol=5e-5)


def test_softmax_is_over_what_a_place_takes():
    plain = affinity(complex_maps(0), complex_maps(1))
    found = affinity(complex_maps(0), complex_maps(1), softmax=True)
    shares = np.exp(plain - plain.max(axis=3, keepdims=True))
    np.testing.assert_allclose(found, shares / shares.sum(axis=3, keepdims=True), atol=1e-5)


def test_a_filter_is_a_gain_that_depends_on_place_and_time():
    layer = fill(BandPass(8, 16))
    time = jt.array(np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32))
    gain = layer(time, 3).numpy()
    assert gain.shape == (3, 1, 16, 16)
    assert 0 < gain.min() < gain.max() < 1
    assert gain.std(axis=(2, 3)).min() > 1e-2
    assert np.abs(gain[0] - gain[1]).max() > 1e-2
    np.testing.assert_array_equal(layer(time, 1).numpy(), gain[:1])


def test_a_mixture_in_inference_is_the_convolution_of_training():
    layer = fill(Mix(6, 10))
    rng = np.random.default_rng(0)
    x, residual = (jt.array(np.float32(rng.standard_normal((2, c, 4, 4)))) for c in (6, 10))
    found = layer(x, residual=residual).numpy()
    layer.train()
    np.testing.assert_allclose(found, layer(x, residual=residual).numpy(), atol=1e-5)


def test_equal_times_of_all_samples_are_filtered_for_once():
    layer = fill(CrossAttention(NetworkConfig(image_size=32, num_channels=32, version="v2"), 128))
    rng = np.random.default_rng(0)
    q, kv = (jt.array(np.float32(rng.standard_normal((3, 128, 4, 4)))) for _ in range(2))
    time = jt.array(np.repeat(np.float32(rng.standard_normal((1, 128))), 3, axis=0))
    rows, plain = [], BandPass.execute

    class Watched(BandPass):
        def execute(self, time, count):
            rows.append(count)
            return plain(self, time, count)

    layer.filter.__class__ = Watched
    each, once = layer(q, kv, time, time).numpy(), layer(q, kv, time[:2], time).numpy()
    assert rows == [3, 1]
    np.testing.assert_array_equal(each, once)
