"""The CUDA kernels, compiled for a CPU on which every thread of a block runs, against NumPy in float64."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import emulated
from medsegdiff.kernels.cuda.sources import SOURCES, source
from tests import numeric
from tests.kernels.compare import assert_close

pytestmark = pytest.mark.extended

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulated")
    text = "\n".join([emulated.emulated(source(*SOURCES)), (HERE / "entries.h").read_text()])
    (folder / "kernels.cpp").write_text(text)
    command = ["g++", "-std=c++14", "-O2", "-fPIC", "-shared", "-w", "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "kernels.so"))


def call(function, *given):
    """Call with arrays as pointers, whole numbers as int, others as float."""

    def passed(value):
        if isinstance(value, np.ndarray):
            return value.ctypes.data_as(ctypes.c_void_p)
        return ctypes.c_float(value) if isinstance(value, float) else value

    return function(*map(passed, given))


def empty(*shape, kind=np.float32):
    """What a kernel must fill: nothing that was not written passes."""
    return np.full(shape, np.nan, kind)


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
def test_the_sources_compile_for_a_gpu(tmp_path):
    head = "#include <iostream>\n#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n#define LOGf std::cerr"
    short = "\n".join(
        f"template void fused::enter(const float*, {kind}*, int, int, int, bool);\n"
        f"template void fused::leave(const {kind}*, const float*, const float*, float*, int, int, int, int, bool);"
        for kind in ("__nv_bfloat16", "__half")
    )
    text = "\n".join([head, source(*SOURCES), short, (HERE / "entries.h").read_text()])
    (tmp_path / "kernels.cu").write_text(text)
    command = ["nvcc", "-arch=sm_90", "-std=c++17", "-Xptxas=-v", "-cubin", "kernels.cu", "-o", "kernels.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Compiling entry function") == 12 + 8
    spills = [line for line in done.stderr.splitlines() if "spill stores" in line]
    assert spills and all(" 0 bytes spill stores" in line for line in spills)


def group_norm(kernels, x, weight, bias, groups, silu):
    n, c, p = x.shape[0], x.shape[1], x[0, 0].size
    y, statistics = empty(*x.shape), empty(n * groups or c, 3)
    call(kernels.norm_forward_of, x, weight, bias, y, statistics, n, c, p, groups, int(silu), weight.size)
    return y, statistics


def group_norm_back(kernels, x, weight, bias, statistics, dy, groups, silu):
    n, c, p = x.shape[0], x.shape[1], x[0, 0].size
    grads = [empty(*value.shape) for value in (x, weight, bias)]
    call(kernels.norm_backward_of, x, weight, bias, statistics, dy, *grads, n, c, p, groups, int(silu), weight.size)
    return grads


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
@pytest.mark.parametrize(("groups", "shape"), [(2, (3, 6, 3, 4)), (32, (2, 64, 9, 7)), (1, (2, 3, 20, 20))])
def test_group_norm(kernels, groups, shape, silu):
    x, weight, bias, dy = 2 + 3 * values(*shape), values(*shape[:2], seed=1), values(*shape[:2], seed=2), values(*shape)
    y, statistics = group_norm(kernels, x, weight, bias, groups, silu)
    given = [value.astype(np.float64) for value in (x, weight, bias)]
    assert_close(y, numeric.group_norm(*given, groups, silu))
    grads = group_norm_back(kernels, x, weight, bias, statistics, dy, groups, silu)
    step = 1e-5
    for index, grad in enumerate(grads):
        for seed in range(3):  # derivatives in random directions
            direction = values(*grad.shape, seed=10 + seed)
            ahead, behind = (
                numeric.group_norm(*given[:index], given[index] + s * direction, *given[index + 1 :], groups, silu)
                for s in (step, -step)
            )
            wanted = ((ahead - behind) * dy).sum() / (2 * step)
            assert abs((grad.astype(np.float64) * direction).sum() - wanted) < 2e-5 * np.linalg.norm(grad)


@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
def test_weights_that_all_samples_share(kernels, silu):
    x, weight, bias, dy = values(3, 64, 5, 4), values(1, 64, seed=1), values(1, 64, seed=2), values(3, 64, 5, 4, seed=3)
    each = [np.repeat(value, 3, axis=0) for value in (weight, bias)]
    y, statistics = group_norm(kernels, x, weight, bias, 32, silu)
    np.testing.assert_array_equal(y, group_norm(kernels, x, *each, 32, silu)[0])
    dx, dweight, dbias, parts = empty(*x.shape), empty(1, 64), empty(1, 64), empty(2, 3, 64)
    given = (x, weight, bias, statistics, dy, dx, dweight, dbias, parts, 3, 64, 20, 32, int(silu))
    call(kernels.norm_backward_shared_of, *given)
    wanted = group_norm_back(kernels, x, *each, statistics, dy, 32, silu)
    np.testing.assert_array_equal(dx, wanted[0])
    for found, whole in zip((dweight, dbias), wanted[1:]):
        np.testing.assert_allclose(found, whole.astype(np.float64).sum(0, keepdims=True), rtol=1e-6)


def test_a_large_mean_costs_no_precision(kernels):
    x, weight, bias = 300 + values(2, 64, 16, 16), np.ones((2, 64), np.float32), np.zeros((2, 64), np.float32)
    y, statistics = group_norm(kernels, x, weight, bias, 32, False)
    assert_close(y, numeric.group_norm(x.astype(np.float64), weight, bias, 32))
    np.testing.assert_allclose(statistics[:, 1], x.astype(np.float64).reshape(64, -1).var(axis=1), rtol=1e-5)


def test_what_is_not_a_number_stays_so(kernels):
    x = values(1, 2, 4, 4)
    x[0, 1, 2, 2] = np.nan
    y, _ = group_norm(kernels, x, np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), 2, True)
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1]).all()


def test_batch_norm(kernels):
    x, weight, bias, dy = 3 + values(3, 4, 5, 7), values(4, seed=1), values(4, seed=2), values(3, 4, 5, 7, seed=3)
    y, statistics = group_norm(kernels, x, weight, bias, 0, False)

    def exact(x):
        normed = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        return normed * weight[:, None, None] + bias[:, None, None], normed

    wanted, normed = exact(x.astype(np.float64))
    assert_close(y, wanted)
    assert_close(statistics[:, 0], x.mean((0, 2, 3)))
    assert_close(statistics[:, 1], x.var((0, 2, 3)))
    dx, dweight, dbias = group_norm_back(kernels, x, weight, bias, statistics, dy, 0, False)
    assert_close(dweight, (normed * dy).sum((0, 2, 3)))
    assert_close(dbias, dy.sum((0, 2, 3)))
    assert_close(dx, numeric.gradient(lambda x: (exact(x)[0] * dy).sum(), x.astype(np.float64)), 1e-4)


@pytest.mark.parametrize("each", [False, True], ids=["of the channel", "of the sample"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_bias_and_residual(kernels, each, with_residual):
    x, residual = values(3, 5, 4, 9), values(3, 5, 4, 9, seed=1)
    bias = values(*((3, 5) if each else (5,)), seed=2)
    y, dbias = empty(*x.shape), empty(*bias.shape)
    call(kernels.bias_forward_of, x, bias, residual if with_residual else None, y, 15, 36, bias.size)
    wanted = x + bias.reshape(-1, 5, 1, 1) + (residual if with_residual else 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)
    call(kernels.bias_backward_of, x, dbias, 15, 36, bias.size)
    assert_close(dbias, x.astype(np.float64).sum((2, 3) if each else (0, 2, 3)))


@pytest.mark.parametrize("tokens", [1, 16, 300])
def test_softmax(kernels, tokens):
    x, pull = 10 * values(7, tokens), values(7, tokens, seed=1)
    p, dx = empty(7, tokens), empty(7, tokens)
    call(kernels.softmax_forward_of, x, p, ctypes.c_long(7), tokens)
    raised = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    wanted = raised / raised.sum(axis=1, keepdims=True)
    assert_close(p, wanted)
    call(kernels.softmax_backward_of, p, pull, dx, ctypes.c_long(7), tokens)
    assert_close(dx, wanted * (pull - (wanted * pull).sum(axis=1, keepdims=True)))


SIZES = np.int32([1, 9000, 700, 8192, 8193])


def test_adamw_of_all_arrays_at_once(kernels):
    total, keep = int(SIZES.sum()), np.float32([1, 0.99, 1, 0.9, 1])
    g, p, m = (values(total, seed=seed) for seed in range(3))
    v = values(total, seed=3) ** 2
    numbers = np.float32([0.5, 0.02, 1.5, 0.9, 0.999, 1 - 0.9, 1 - 0.999, 1e-8])
    wide = [value.astype(np.float64) for value in (g, p, m, v)]
    before = kernels.launches()
    call(kernels.adamw_of, g, p, m, v, SIZES, keep, len(SIZES), numbers)
    assert kernels.launches() == before + 1
    half = 0.5 * wide[0]
    mean, square = 0.9 * wide[2] + 0.1 * half, 0.999 * wide[3] + 0.001 * half**2
    moved = np.repeat(keep, SIZES) * wide[1] - 0.02 * mean / (np.sqrt(square) * 1.5 + 1e-8)
    for found, wanted in ((p, moved), (m, mean), (v, square)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_all_averages_approach_at_once(kernels):
    value, average = values(int(SIZES.sum())), values(int(SIZES.sum()), seed=1)
    wanted = 0.75 * average.astype(np.float64) + 0.25 * value
    call(kernels.approach_of, value, average, SIZES, len(SIZES), 0.25)
    np.testing.assert_allclose(average, wanted, rtol=1e-5, atol=1e-6)


def test_squares_of_all_arrays(kernels):
    value, sums = 1e19 * values(int(SIZES.sum())), empty(10, kind=np.float64)
    blocks = call(kernels.squares_of, value, SIZES, len(SIZES), sums)
    assert blocks == 7
    np.testing.assert_allclose(sums[:blocks].sum(), (value.astype(np.float64) ** 2).sum(), rtol=1e-12)
