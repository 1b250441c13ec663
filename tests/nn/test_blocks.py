import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.blocks import AttentionBlock, Downsample, ResBlock, Upsample
from medsegdiff.nn.layers import DropoutStreams
from medsegdiff.runtime.backend import jt
from tests import numeric
from tests.nn.filled import arrays_of, fill


def config(**options):
    return NetworkConfig(image_size=32, num_channels=32, **options)


def maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def norm(x, values, name, silu=True):
    weight, bias = (np.broadcast_to(values[f"{name}.{part}"], x.shape[:2]) for part in ("weight", "bias"))
    return numeric.group_norm(x, weight, bias, 32, silu)


def conv(x, values, name, stride=1):
    weight = values[f"{name}.weight"]
    return numeric.conv2d(x, weight, values[f"{name}.bias"], stride, weight.shape[2] // 2)


def nearest(x):
    return np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)


def pooled(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample", ["", "up", "down"])
def test_residual_block(resample, scale_shift):
    outputs = 32 if resample else 64
    options = config(use_scale_shift_norm=scale_shift)
    block = fill(ResBlock(options, 32, outputs, DropoutStreams(), resample))
    values, x, embedding = arrays_of(block), maps(2, 32, 4, 6), maps(2, 128, seed=1)
    change = {"": lambda a: a, "up": nearest, "down": pooled}[resample]
    h = conv(change(norm(x, values, "in_layers.0")), values, "in_layers.2")
    e = embedding @ values["emb_layers.1.weight"].T + values["emb_layers.1.bias"]
    e = e[:, :, None, None]
    if scale_shift:
        h = numeric.silu(norm(h, values, "out_layers.0", silu=False) * (1 + e[:, :outputs]) + e[:, outputs:])
    else:
        h = norm(h + e, values, "out_layers.0")
    skip = change(x) if resample else conv(x, values, "skip_connection")
    expected = skip + conv(h, values, "out_layers.3")
    result = block(jt.array(x), jt.array(embedding)).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_block_in_both_orders_of_its_channels(new_order):
    block = fill(AttentionBlock(config(num_heads=4, use_new_attention_order=new_order), 64))
    values, x = arrays_of(block), maps(2, 64, 3, 4)
    normed = norm(x, values, "norm", silu=False).reshape(2, 64, 12)
    qkv = np.einsum("oc,nct->not", values["qkv.weight"][:, :, 0], normed) + values["qkv.bias"][:, None]
    heads = []
    for head in range(4):
        if new_order:  # all of q, then all of k, then all of v
            q, k, v = (qkv[:, part * 64 + head * 16 : part * 64 + head * 16 + 16] for part in range(3))
        else:  # q, k, v of the first head, then of the second
            q, k, v = (qkv[:, head * 48 + part * 16 : head * 48 + part * 16 + 16] for part in range(3))
        heads.append(numeric.attention(q, k, v))
    h = np.concatenate(heads, axis=1)
    h = np.einsum("oc,nct->not", values["proj_out.weight"][:, :, 0], h) + values["proj_out.bias"][:, None]
    np.testing.assert_allclose(block(jt.array(x)).numpy(), x + h.reshape(x.shape), atol=1e-4)


def test_changes_of_resolution_by_convolution():
    down, up, x = fill(Downsample(32)), fill(Upsample(32)), maps(2, 32, 4, 6)
    np.testing.assert_allclose(down(jt.array(x)).numpy(), conv(x, arrays_of(down), "op", stride=2), atol=1e-4)
    np.testing.assert_allclose(up(jt.array(x)).numpy(), conv(nearest(x), arrays_of(up), "conv"), atol=1e-4)
