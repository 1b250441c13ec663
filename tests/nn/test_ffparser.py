import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.nn.ffparser import FFParser
from medsegdiff.runtime.backend import jt
from tests.nn.filled import arrays_of


def test_it_multiplies_the_spectrum_by_its_weight():
    parser = FFParser(3, 8)
    parser.reset(generator(0))
    weight = arrays_of(parser)["complex_weight"]
    assert weight.shape == (3, 8, 5, 2)
    assert 0.015 < weight.std() < 0.025
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    spectrum = np.fft.rfft2(x) * (weight[..., 0] + 1j * weight[..., 1])
    expected = np.fft.irfft(np.fft.ifft(spectrum, axis=2), n=8, axis=3)
    np.testing.assert_allclose(parser(jt.array(x)).numpy(), expected, atol=1e-6)
