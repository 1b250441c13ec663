import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import weights
from medsegdiff.nn.highway import Highway
from medsegdiff.nn.layers import DropoutStreams, set_dropout
from medsegdiff.runtime.backend import jt
from tests.nn.filled import fill


@pytest.fixture
def highway():
    return fill(Highway(NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1), DropoutStreams()))


@pytest.fixture
def image():
    return jt.array(np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32))


def test_the_anchor_is_two_maps_of_half_and_one_of_a_quarter_resolution(highway, image):
    anchor = highway(image).anchor.numpy()
    assert anchor.shape == (2, 32, 32, 32)
    np.testing.assert_array_equal(anchor[:, :8], anchor[:, 8:16])
    assert not np.allclose(anchor[:, :8], anchor[:, 16:24])
    # Bilinear interpolation by 2 and by 4 makes maps that are linear between the centres of coarse pixels.
    for maps, factor in [(anchor[:, :8], 2), (anchor[:, 16:], 4)]:
        inner = maps[:, :, factor // 2 : -factor // 2, factor // 2 : -factor // 2]
        bends = np.abs(np.diff(inner, n=2, axis=3)).max(axis=(0, 1, 2))
        between = np.arange(len(bends)) % factor < factor - 2
        assert (bends[between] < 1e-5).all()
        assert bends.max() > 1e-3


def test_the_anchor_trains_nothing_and_cal_trains_the_whole_network(highway, image):
    highway.train()  # in evaluation mode Jittor gives no gradients at all
    set_dropout(highway, 0)
    seen = highway(image)
    parameters = weights.parameters(highway)
    noise = jt.array(np.random.default_rng(1).standard_normal(seen.cal.shape).astype(np.float32))
    of_cal = jt.grad((seen.cal * noise).sum(), list(parameters.values()))
    of_anchor = jt.grad((seen.anchor * seen.anchor).sum(), list(parameters.values()))
    jt.sync([*of_cal, *of_anchor])
    for name, cal, anchor in zip(parameters, of_cal, of_anchor):
        assert not anchor.numpy().any(), name
        if not name.endswith("conv.bias"):  # a batch norm follows: their gradient is zero but for rounding
            assert np.abs(cal.numpy()).max() > 1e-7, name


def test_sums_over_many_pixels_are_exact_to_float32_forward_and_back():
    """Version v1 multiplies by means over pixels: at 256 x 256 of 16,384, and their gradients are sums of as many."""
    config = NetworkConfig(image_size=256, num_channels=32, num_res_blocks=1, version="v1")
    highway = fill(Highway(config, DropoutStreams()))
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
