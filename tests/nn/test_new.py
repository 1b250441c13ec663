import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import weights
from medsegdiff.nn.highway import Highway
from medsegdiff.nn.layers import DropoutStreams, set_dropout
from medsegdiff.nn.new import anchor
from medsegdiff.runtime.backend import jt
from tests.nn.filled import fill


@pytest.fixture
def highway():
    return fill(Highway(NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1), DropoutStreams()))


@pytest.fixture
def image():
    return jt.array(np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32))


def test_the_anchor_is_two_maps_of_half_and_one_of_a_quarter_resolution(highway, image):
    found = anchor(highway(image).expanded).numpy()
    assert found.shape == (2, 32, 32, 32)
    np.testing.assert_array_equal(found[:, :8], found[:, 8:16])
    assert not np.allclose(found[:, :8], found[:, 16:24])
    # Bilinear interpolation by 2 and by 4 makes maps that are linear between the centres of coarse pixels.
    for maps, factor in [(found[:, :8], 2), (found[:, 16:], 4)]:
        inner = maps[:, :, factor // 2 : -factor // 2, factor // 2 : -factor // 2]
        bends = np.abs(np.diff(inner, n=2, axis=3)).max(axis=(0, 1, 2))
        between = np.arange(len(bends)) % factor < factor - 2
        assert (bends[between] < 1e-5).all()
        assert bends.max() > 1e-3


def test_without_its_dropout_the_conditioning_network_draws_nothing_in_training(image):
    config = NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1, cond_dropout=0.0)
    highway = Highway(config, DropoutStreams())  # which has no random numbers to give
    highway.train()
    assert np.isfinite(highway(image).cal.numpy()).all()


def test_the_anchor_trains_nothing_and_cal_trains_the_whole_network(highway, image):
    highway.train()  # in evaluation mode Jittor gives no gradients at all
    set_dropout(highway, 0)
    seen = highway(image)
    anchored = anchor(seen.expanded)
    parameters = weights.parameters(highway)
    noise = jt.array(np.random.default_rng(1).standard_normal(seen.cal.shape).astype(np.float32))
    of_cal = jt.grad((seen.cal * noise).sum(), list(parameters.values()))
    of_anchor = jt.grad((anchored * anchored).sum(), list(parameters.values()))
    jt.sync([*of_cal, *of_anchor])
    for name, by_cal, by_anchor in zip(parameters, of_cal, of_anchor):
        assert not by_anchor.numpy().any(), name
        if not name.endswith("conv.bias"):  # a batch norm follows: their gradient is zero but for rounding
            assert np.abs(by_cal.numpy()).max() > 1e-7, name
