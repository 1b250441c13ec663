import numpy as np
import pytest

from benchmarks.emulated import on_a_gpu
from medsegdiff.kernels import operations, precision, reference
from medsegdiff.kernels.operations import Step
from medsegdiff.runtime.backend import jt
from tests.kernels.compare import assert_close, run

pytestmark = pytest.mark.extended


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def compare(ours, plain, arrays, tolerance=1e-4):
    with on_a_gpu():
        shape = ours(*map(jt.array, arrays)).shape
        pull = values(*shape, seed=9)
        y, grads = run(ours, arrays, pull)
    wanted, expected = run(plain, arrays, pull)
    assert_close(y, wanted)
    for grad, other in zip(grads, expected):
        assert_close(grad, other, tolerance)


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
def test_group_norm(silu):
    arrays = [2 + values(2, 8, 5, 3), values(2, 8), values(2, 8, seed=1)]
    compare(
        lambda *given: operations.group_norm(*given, 4, silu),
        lambda *given: reference.group_norm(*given, 4, silu),
        arrays,
    )


def test_group_norm_by_weights_that_all_samples_share():
    arrays = [2 + values(3, 8, 5, 3), values(1, 8), values(1, 8, seed=1)]
    compare(
        lambda *given: operations.group_norm(*given, 4, True),
        lambda x, *affine: reference.group_norm(x, *(value.broadcast([3, 8]) for value in affine), 4, True),
        arrays,
    )


def test_linear(monkeypatch):
    arrays = [values(3, 5, 7), values(4, 7), values(4)]
    compare(operations.linear, reference.linear, arrays)
    monkeypatch.setattr(precision, "_current", "bf16")  # it stays float32
    with on_a_gpu():
        y = operations.linear(*map(jt.array, arrays)).numpy()
    assert_close(y, arrays[0] @ arrays[1].T + arrays[2])


def test_batch_norm():
    arrays = [2 + values(3, 4, 5, 3), values(4), values(4, seed=1)]
    compare(lambda *given: operations.batch_norm(*given)[0], lambda *given: reference.batch_norm(*given)[0], arrays)
    with on_a_gpu():
        found = [value.numpy() for value in operations.batch_norm(*map(jt.array, arrays))[1:]]
    for ours, wanted in zip(found, reference.batch_norm(*map(jt.array, arrays))[1:]):
        assert_close(ours, wanted.numpy())


SHAPES = [(2, 3, 6, 5, 4), (2, 8, 6, 5, 16), (1, 40, 7, 6, 8)]
"""N, C, H, W, O: the last two with the channels last where cuDNN is given fewer bits."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("each", [False, True], ids=["of the channel", "of the sample"])
@pytest.mark.parametrize("residual", [False, True])
def test_convolution(each, residual, shape):
    n, c, h, w, o = shape
    arrays = [values(n, c, h, w), values(o, c, 3, 3), values(*((n, o) if each else (o,)))]
    arrays += [values(n, o, h, w, seed=1)] if residual else []
    compare(
        lambda x, w, b, r=None: operations.conv2d(x, w, b, padding=1, residual=r),
        lambda x, w, b, r=None: reference.conv2d(x, w, b, padding=1, residual=r),
        arrays,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "bits"), [("bf16", 8), ("fp16", 11)])
def test_a_convolution_in_fewer_bits(monkeypatch, kind, bits, shape):
    n, c, h, w, o = shape
    arrays = [values(n, c, h, w), values(o, c, 3, 3), values(n, o), values(n, o, (h + 1) // 2, (w + 1) // 2, seed=1)]

    def rounded(value):
        fraction, exponent = np.frexp(value)
        return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits).astype(np.float32)

    arrays[:2] = map(rounded, arrays[:2])
    pull = rounded(values(*arrays[3].shape, seed=9))
    wanted, expected = run(lambda x, w, b, r: reference.conv2d(x, w, b, 2, 1, r), arrays, pull)
    monkeypatch.setattr(precision, "_current", kind)
    with on_a_gpu():
        y, grads = run(lambda x, w, b, r: operations.conv2d(x, w, b, 2, 1, r), arrays, pull)
    sums = wanted - arrays[2][:, :, None, None] - arrays[3]
    np.testing.assert_allclose(y, wanted, atol=np.abs(sums).max() * 2.0**-bits)
    for grad, other in zip(grads, expected):
        assert_close(grad, other, 2.0**-bits)
    # As many bits as that, and no more.
    assert np.abs(grads[0] - expected[0]).max() > np.abs(expected[0]).max() * 2.0 ** -(bits + 4)


def test_a_convolution_without_bias_takes_a_residual():
    arrays = [values(2, 3, 6, 5), values(4, 3, 1, 1), values(2, 4, 6, 5, seed=1)]
    compare(
        lambda x, w, r: operations.conv2d(x, w, residual=r), lambda x, w, r: reference.conv2d(x, w, residual=r), arrays
    )


def test_a_kernel_of_one_dimension():
    arrays = [values(2, 8, 6, 1), values(16, 8, 1), values(16)]
    compare(operations.conv2d, reference.conv2d, arrays)


def test_attention():
    arrays = [values(2, 6, 10, seed=seed) for seed in range(3)]
    compare(operations.attention, reference.attention, arrays)


MIXED = [(3,), (40, 300), (7, 5, 3, 3), (1,), *[(2, 3)] * 62]


def test_many_arrays_are_updated_as_one_by_one():
    step = Step(scale=0.5, keep=0.99, rate=0.02, correction=1.5, beta1=0.9, beta2=0.999, eps=1e-8)
    given = [[values(*shape, seed=kind) for shape in MIXED] for kind in range(3)]
    given.append([values(*shape, seed=3) ** 2 for shape in MIXED])
    with on_a_gpu():
        held = [[jt.array(value).stop_grad() for value in column] for column in given]
        operations.adamw(*held, step)
        found = [[value.numpy() for value in held[kind]] for kind in (0, 2, 3)]
        assert not held[0][0].is_stop_grad()
        averages = [jt.array(value) for value in given[0]]
        operations.approach(averages, [jt.array(value) for value in given[1]], 0.25)
        squares = operations.sum_of_squares([jt.array(value) for value in given[0]]).numpy()
    for index, arrays in enumerate(zip(*given)):
        wanted = reference.adamw(*map(jt.array, arrays), step)
        for column, value in zip(found, wanted):
            np.testing.assert_allclose(column[index], value.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(averages[index].numpy(), 0.75 * arrays[0] + 0.25 * arrays[1], rtol=1e-5, atol=1e-6)
    assert squares == pytest.approx(sum((value.astype(np.float64) ** 2).sum() for value in given[0]), rel=1e-6)
