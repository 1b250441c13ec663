import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.ssformer import BandPass, CrossAttention, Mix
from medsegdiff.runtime.backend import jt
from tests.nn.filled import fill


def test_a_filter_is_a_gain_that_depends_on_place_and_time():
    layer = fill(BandPass(8, 16))
    time = jt.array(np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32))
    gain = layer(time).numpy()
    assert gain.shape == (3, 1, 16, 16)
    assert 0 < gain.min() < gain.max() < 1
    assert gain.std(axis=(2, 3)).min() > 1e-2
    assert np.abs(gain[0] - gain[1]).max() > 1e-2
    np.testing.assert_array_equal(layer(time[:1]).numpy(), gain[:1])


@pytest.mark.parametrize("gelu", [False, True])
def test_a_mixture_in_inference_is_the_convolution_of_training(gelu):
    layer = fill(Mix(6, 10, gelu=gelu))
    rng = np.random.default_rng(0)
    x, residual = (jt.array(np.float32(rng.standard_normal((2, c, 4, 4)))) for c in (6, 10))
    added = None if gelu else residual
    found = layer(x, residual=added).numpy()
    layer.train()
    np.testing.assert_allclose(found, layer(x, residual=added).numpy(), atol=1e-5)


def test_equal_times_of_all_samples_are_filtered_for_once():
    layer = fill(CrossAttention(NetworkConfig(image_size=32, num_channels=32, version="v2"), 128))
    rng = np.random.default_rng(0)
    q, kv = (jt.array(np.float32(rng.standard_normal((3, 128, 4, 4)))) for _ in range(2))
    time = jt.array(np.repeat(np.float32(rng.standard_normal((1, 128))), 3, axis=0))
    rows, plain = [], BandPass.execute

    class Watched(BandPass):
        def execute(self, time):
            rows.append(len(time))
            return plain(self, time)

    layer.filter.__class__ = Watched
    each, once = layer(q, kv, time, time).numpy(), layer(q, kv, time[:1], time).numpy()
    assert rows == [3, 1]
    np.testing.assert_array_equal(each, once)
