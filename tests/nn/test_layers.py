import numpy as np
import pytest

from medsegdiff.base.randomness import generator
from medsegdiff.nn.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    DropoutStreams,
    Embedding,
    GroupNorm,
    Linear,
    PointwiseConv,
    set_dropout,
)
from medsegdiff.runtime.backend import jt, nn
from tests import numeric
from tests.nn.filled import arrays_of, fill


def maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def streams(samples):
    return [generator("dropout", sample) for sample in samples]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_conv2d_keeps_the_size_or_divides_it_by_the_stride(kernel, stride):
    layer, x = fill(Conv2d(3, 5, kernel, stride)), maps(2, 3, 8, 6)
    expected = numeric.conv2d(x, *(arrays_of(layer)[name] for name in ("weight", "bias")), stride, kernel // 2)
    assert expected.shape == (2, 5, 8 // stride, 6 // stride)
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)


def test_pointwise_conv_linear_and_embedding():
    layer, x = fill(PointwiseConv(3, 5)), maps(2, 3, 4, 6)
    weight, bias = (arrays_of(layer)[name] for name in ("weight", "bias"))
    assert weight.shape == (5, 3, 1)
    expected = np.einsum("nchw,oc->nohw", x, weight[:, :, 0]) + bias.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)

    layer, x = fill(Linear(3, 5)), maps(4, 3)
    expected = x @ arrays_of(layer)["weight"].T + arrays_of(layer)["bias"]
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)

    layer = fill(Embedding(4, 6))
    np.testing.assert_array_equal(layer(jt.array([2, 0, 2])).numpy(), arrays_of(layer)["weight"][[2, 0, 2]])


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_with_scale_and_shift_of_each_sample(silu):
    layer, x, scale, shift = fill(GroupNorm(64)), maps(2, 64, 3, 4), maps(2, 64, seed=1), maps(2, 64, seed=2)
    weight, bias = (np.broadcast_to(arrays_of(layer)[name], (2, 64)) for name in ("weight", "bias"))
    plain = numeric.group_norm(x, weight, bias, 32)
    moved = plain * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    results = layer(jt.array(x), silu=silu), layer(jt.array(x), jt.array(scale), jt.array(shift), silu=silu)
    for result, expected in zip(results, (plain, moved)):
        np.testing.assert_allclose(result.numpy(), numeric.silu(expected) if silu else expected, atol=1e-5)


def test_batch_norm_in_training_moves_its_statistics_with_the_unbiased_variance():
    layer = fill(BatchNorm2d(3))
    layer.train()
    before = arrays_of(layer)
    mean, variance = before["running_mean"], before["running_var"]
    for seed in range(2):
        x = 2 + 3 * maps(2, 3, 4, 5, seed=seed)
        result = layer(jt.array(x)).numpy()
        axes = (0, 2, 3)
        normed = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        expected = normed * before["weight"].reshape(1, -1, 1, 1) + before["bias"].reshape(1, -1, 1, 1)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        mean = 0.9 * mean + 0.1 * x.mean(axes)
        variance = 0.9 * variance + 0.1 * x.var(axes, ddof=1)
        np.testing.assert_allclose(arrays_of(layer)["running_mean"], mean, rtol=1e-5)
        np.testing.assert_allclose(arrays_of(layer)["running_var"], variance, rtol=1e-5)


def test_batch_norm_does_not_train_on_one_value_a_channel():
    layer = BatchNorm2d(3)
    layer.train()
    with pytest.raises(ValueError, match=r"one value a channel, shape \(1, 3, 1, 1\)"):
        layer(jt.ones((1, 3, 1, 1)))
    layer.eval()
    assert layer(jt.ones((1, 3, 1, 1))).shape == [1, 3, 1, 1]


def test_batch_norm_in_evaluation_uses_its_statistics_and_leaves_them():
    layer, x = fill(BatchNorm2d(3)), maps(2, 3, 4, 5)
    before = arrays_of(layer)
    mean, variance, weight, bias = (
        before[name].reshape(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    expected = (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)
    for name, value in arrays_of(layer).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_masks_belong_to_the_sample_so_that_splitting_a_batch_changes_nothing(channels):
    shared = DropoutStreams()
    layer = Dropout(0.3, shared, channels)
    layer.train()
    x = np.ones((4, 16, 5, 6), np.float32)
    shared.generators = streams(range(4))
    whole = np.stack([layer(jt.array(x)).numpy() for _ in range(2)])
    parts = []
    for rows in ([0], [1, 2, 3]):
        shared.generators = streams(rows)
        parts.append(np.stack([layer(jt.array(x[rows])).numpy() for _ in range(2)]))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(whole[0, 0], whole[0, 1])


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_keeps_the_mean_and_drops_whole_maps_on_demand(channels):
    shared = DropoutStreams()
    layer = Dropout(0.3, shared, channels)
    layer.train()
    shared.generators = streams(range(4))
    result = layer(jt.ones((4, 2000, 3, 2))).numpy()
    np.testing.assert_allclose(np.unique(result), [0, 1 / 0.7], rtol=1e-6)
    draws = 8000 if channels else result.size
    assert abs((result == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / draws)
    assert (result == result[:, :, :1, :1]).all() == channels


def test_dropout_outside_training_or_at_probability_0_draws_nothing():
    for layer, training in [(Dropout(0.5, DropoutStreams()), False), (Dropout(0.0, DropoutStreams()), True)]:
        layer.train() if training else layer.eval()
        x = maps(2, 3, 4, 5)
        np.testing.assert_array_equal(layer(jt.array(x)).numpy(), x)


def test_dropout_without_a_stream_for_each_sample_is_an_error():
    layer = Dropout(0.5, DropoutStreams())
    layer.train()
    with pytest.raises(RuntimeError, match="2 samples are trained with 0 dropout streams"):
        layer(jt.ones((2, 3, 4, 5)))


def test_set_dropout_reaches_every_dropout():
    shared = DropoutStreams()
    module = nn.Sequential(Dropout(0.5, shared), nn.Sequential(Linear(2, 2), Dropout(0.1, shared, channels=True)))
    set_dropout(module, 0)
    assert [module[0].probability, module[1][1].probability] == [0, 0]


def test_initial_weights_have_the_standard_deviation_of_their_rule():
    for layer, fan_in in [(Conv2d(16, 64, 3), 144), (PointwiseConv(64, 96), 64), (Linear(64, 96), 64)]:
        layer.reset(generator(0))
        values = arrays_of(layer)
        for name in ("weight", "bias"):
            assert np.abs(values[name]).max() <= fan_in**-0.5
            assert np.abs(values[name]).max() > 0.8 * fan_in**-0.5
            assert len(np.unique(values[name])) > 0.9 * values[name].size

    he = Conv2d(16, 64, 3, init="he")
    he.reset(generator(0))
    values = arrays_of(he)
    assert values["weight"].std() == pytest.approx(np.sqrt(2 / 144), rel=0.03)
    assert not values["bias"].any()

    zero = Conv2d(16, 64, 3, init="zero")
    zero.reset(generator(0))
    assert not any(value.any() for value in arrays_of(zero).values())
