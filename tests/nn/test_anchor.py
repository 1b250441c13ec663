import numpy as np
import pytest

from medsegdiff.nn.anchor import UncertainAttention
from medsegdiff.runtime.backend import jt
from tests.nn.filled import fill

MEAN = np.array([[0.0, 0.0], [1.0, -0.5], [0.3, 2.0]])
DEVIATION = np.array([1.0, 0.2, -1.0])


@pytest.fixture
def maps():
    return np.random.default_rng(0).standard_normal((2, 3, 9, 12)).astype(np.float32)


def attention(mean, deviation):
    layer = fill(UncertainAttention(3))
    layer.mean.assign(jt.array(np.float32(mean)))
    layer.deviation.assign(jt.array(np.float32(deviation)))
    return layer


def test_each_channel_is_blurred_by_its_own_gaussian(maps):
    found = attention(MEAN, DEVIATION).blurred(jt.array(maps)).numpy()
    padded = np.pad(maps.astype(np.float64), ((0, 0), (0, 0), (2, 2), (2, 2)))
    y, x = np.mgrid[-2:3, -2:3]
    for channel, (mean, deviation) in enumerate(zip(MEAN, np.log1p(np.exp(DEVIATION)))):
        kernel = np.exp(-((y - mean[0]) ** 2 + (x - mean[1]) ** 2) / (2 * deviation**2))
        kernel /= kernel.sum()
        windows = np.lib.stride_tricks.sliding_window_view(padded[:, channel], (5, 5), axis=(1, 2))
        wanted = (windows * kernel).sum(axis=(3, 4))
        np.testing.assert_allclose(found[:, channel], wanted, atol=3e-5)  # a variance of 1e-6 is added


def test_without_deviation_nothing_is_blurred(maps):
    found = attention(np.zeros((3, 2)), np.full(3, -200.0)).blurred(jt.array(maps)).numpy()
    np.testing.assert_array_equal(found, maps)


def test_the_gate_takes_the_larger_of_blurred_and_sharp(maps):
    layer = attention(MEAN, DEVIATION)
    x = jt.array(maps)
    larger = np.maximum(layer.blurred(x).numpy(), maps)
    weight, bias = layer.gate.weight.numpy()[0, :, 0, 0], layer.gate.bias.numpy()
    wanted = 1 / (1 + np.exp(-(np.einsum("nchw,c->nhw", larger, weight) + bias)))
    found = layer(x).numpy()
    assert found.shape == (2, 1, 9, 12)
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-6)
