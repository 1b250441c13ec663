import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.layers import DropoutStreams
from medsegdiff.nn.v1 import DynamicHighway, FFParser
from medsegdiff.runtime.backend import jt
from tests.nn.filled import arrays_of, fill


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


def test_sums_over_many_pixels_are_exact_to_float32_forward_and_back():
    """Version v1 multiplies by means over pixels: at 256 x 256 of 16,384, and their gradients are sums of as many."""
    config = NetworkConfig(image_size=256, num_channels=32, num_res_blocks=1, version="v1")
    highway = fill(DynamicHighway(config, DropoutStreams()))
    highway.conv_trans_blocks_a = highway.ffparser = highway.conv_trans_blocks_b = [lambda h: h]
    rng = np.random.default_rng(0)
    x, h, dy = ((1 + rng.random((2, 8, 128, 128))).astype(np.float32) for _ in range(3))
    xs, hs = jt.array(x), jt.array(h)
    y = highway._inject(xs, 0, hs)
    dx, dh = jt.grad((y * jt.array(dy)).sum(), [xs, hs])
    x, h, dy = (array.astype(np.float64) for array in (x, h, dy))
    channel = h.mean((2, 3), keepdims=True)
    through = (dy * x * h).mean((2, 3), keepdims=True)
    for found, wanted in ((y, x * h * channel), (dx, dy * h * channel), (dh, dy * x * channel + through)):
        assert found.dtype == "float32"
        np.testing.assert_allclose(found.numpy(), wanted, rtol=6e-7)
