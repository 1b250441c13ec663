import numpy as np
import pytest

from medsegdiff.kernels import operations, reference
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close, run
from tests.processor import set_threads

SIZE, HEADS, D = (4, 6), 2, 5
N = SIZE[0] * SIZE[1]
MODULES = pytest.mark.parametrize("module", [operations, reference])


def complex_maps(seed=0):
    """(2, HEADS, D, N) complex: queries or keys by head."""
    parts = np.random.default_rng(seed).standard_normal((2, 2, HEADS, D, N))
    return parts[0] + 1j * parts[1]


def packed(maps):
    both = np.concatenate([maps.real, maps.imag], axis=-1)
    return np.float32(both.reshape(2, HEADS * D, 2 * N))


def wanted(query, key, act):
    """The affinity as the paper writes it, by NumPy's FFT."""

    def transform(x, fft):
        return fft(x.reshape(*x.shape[:-1], *SIZE), norm="ortho").reshape(x.shape)

    q, k = (transform(x, np.fft.fft2) for x in (query, key))
    scores = act(np.einsum("ahdi,ahdj->ahij", q, k) / np.sqrt(D))
    once = transform(scores, np.fft.ifft2)
    return transform(once.swapaxes(2, 3), np.fft.ifft2).swapaxes(2, 3).real


def affinity(module, query, key, **options):
    """What each place takes of each place: the value is one for one place and zero for all others."""
    value = jt.array(np.tile(np.eye(N, dtype=np.float32), (2, HEADS, 1)))
    found = module.spectral_attention(jt.array(packed(query)), jt.array(packed(key)), value, SIZE, HEADS, **options)
    return found.numpy().reshape(2, HEADS, N, N).swapaxes(2, 3)


@MODULES
def test_with_a_gain_of_one_and_real_weights_it_is_the_plain_product(module):
    query, key = complex_maps(0).real + 0j, complex_maps(1).real + 0j
    plain = np.einsum("ahdi,ahdj->ahij", query.real, key.real) / np.sqrt(D)
    np.testing.assert_allclose(affinity(module, query, key, gain=jt.ones((1, 1, N, N))), plain, atol=2e-5)


@MODULES
@pytest.mark.parametrize("rows", [1, 2])
def test_a_gain_acts_on_each_entry_of_the_spectrum(module, rows):
    gain = np.random.default_rng(2).random((rows, 1, N, N))
    found = affinity(module, complex_maps(0), complex_maps(1), gain=jt.array(gain.astype(np.float32)))
    np.testing.assert_allclose(found, wanted(complex_maps(0), complex_maps(1), lambda m: m * gain), atol=5e-5)


@MODULES
def test_the_sine_is_of_real_and_imaginary_part(module):
    found = affinity(module, complex_maps(0), complex_maps(1))
    act = wanted(complex_maps(0), complex_maps(1), lambda m: np.sin(m.real) + 1j * np.sin(m.imag))
    np.testing.assert_allclose(found, act, atol=5e-5)


@MODULES
def test_softmax_is_over_what_a_place_takes(module):
    plain = affinity(module, complex_maps(0), complex_maps(1))
    found = affinity(module, complex_maps(0), complex_maps(1), softmax=True)
    shares = np.exp(plain - plain.max(axis=3, keepdims=True))
    np.testing.assert_allclose(found, shares / shares.sum(axis=3, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_values_and_gradients_are_those_of_the_plain_expression(rows, softmax):
    rng = np.random.default_rng(3)
    arrays = [packed(complex_maps(0)), packed(complex_maps(1)), rng.standard_normal((2, HEADS * 3, N))]
    arrays += [rng.random((rows, 1, N, N))] if rows else []
    dy = rng.standard_normal(arrays[2].shape)

    def of(module):
        def attend(query, key, value, gain=None):
            return module.spectral_attention(query, key, value, SIZE, HEADS, gain, softmax)

        return run(attend, arrays, dy)

    found, plain = of(operations), of(reference)
    assert_close(found[0], plain[0])
    for gradient, other in zip(found[1], plain[1]):
        assert_close(gradient, other)


def test_a_sample_is_the_same_in_every_batch_and_with_every_number_of_threads():
    rng = np.random.default_rng(4)
    query, key, value = (np.float32(rng.standard_normal((5, 64, size))) for size in (128, 128, 64))
    gain = jt.array(np.float32(rng.random((1, 1, 64, 64))))

    def taken(rows):
        return operations.spectral_attention(*(jt.array(x[rows]) for x in (query, key, value)), (8, 8), 4, gain).numpy()

    together, before = taken(slice(None)), set_threads(1)
    try:
        for rows in (slice(0, 1), slice(1, 4), slice(None)):
            np.testing.assert_array_equal(taken(rows), together[rows])
    finally:
        set_threads(before)
