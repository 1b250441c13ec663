import numpy as np
import pytest

from benchmarks.emulated import on_a_gpu
from medsegdiff.kernels import operations, reference
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


def test_batch_norm():
    arrays = [2 + values(3, 4, 5, 3), values(4), values(4, seed=1)]
    compare(lambda *given: operations.batch_norm(*given)[0], lambda *given: reference.batch_norm(*given)[0], arrays)
    with on_a_gpu():
        found = [value.numpy() for value in operations.batch_norm(*map(jt.array, arrays))[1:]]
    for ours, wanted in zip(found, reference.batch_norm(*map(jt.array, arrays))[1:]):
        assert_close(ours, wanted.numpy())


@pytest.mark.parametrize("each", [False, True], ids=["of the channel", "of the sample"])
@pytest.mark.parametrize("residual", [False, True])
def test_convolution(each, residual):
    arrays = [values(2, 3, 6, 5), values(4, 3, 3, 3), values(*((2, 4) if each else (4,)))]
    arrays += [values(2, 4, 6, 5, seed=1)] if residual else []
    compare(
        lambda x, w, b, r=None: operations.conv2d(x, w, b, padding=1, residual=r),
        lambda x, w, b, r=None: reference.conv2d(x, w, b, padding=1, residual=r),
        arrays,
    )


def test_a_convolution_without_bias_takes_a_residual():
    arrays = [values(2, 3, 6, 5), values(4, 3, 1, 1), values(2, 4, 6, 5, seed=1)]
    compare(
        lambda x, w, r: operations.conv2d(x, w, residual=r), lambda x, w, r: reference.conv2d(x, w, residual=r), arrays
    )


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
