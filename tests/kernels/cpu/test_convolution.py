import numpy as np
import pytest

from medsegdiff.kernels import precision, reference
from medsegdiff.kernels.cpu import convolution
from medsegdiff.kernels.operations import Norm, Packed, conv2d, group_norm
from medsegdiff.runtime.backend import jt
from tests import numeric
from tests.kernels.compare import assert_close, run
from tests.processor import BF16, needs_bf16, set_threads


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding", "size"),
    [
        (5, 7, 3, 1, 1, (6, 9)),
        (5, 7, 3, 2, 1, (8, 6)),
        (4, 3, 3, 2, 1, (7, 5)),
        (6, 2, 1, 1, 0, (5, 4)),
        (6, 4, 1, 2, 0, (5, 4)),
        (1, 8, 3, 1, 1, (7, 8)),
        (1, 1, 1, 1, 0, (3, 4)),
        (8, 1, 3, 1, 1, (5, 5)),
        (3, 32, 3, 1, 0, (6, 6)),
        (64, 48, 3, 1, 1, (1, 1)),
    ],
)
def test_values_and_gradients(inputs, outputs, kernel, stride, padding, size, bias):
    rng = np.random.default_rng(inputs * 100 + outputs)
    x = rng.standard_normal((3, inputs, *size))
    weight = rng.standard_normal((outputs, inputs, kernel, kernel))
    arrays = [x, weight, rng.standard_normal(outputs)][: 3 if bias else 2]
    expected = numeric.conv2d(*arrays, stride=stride, padding=padding)
    dy = rng.standard_normal(expected.shape)
    y, grads = run(lambda *inputs: conv2d(*inputs, stride=stride, padding=padding), arrays, dy)
    assert_close(y, expected)
    for grad, wanted in zip(grads, numeric.conv2d_gradients(x, weight, dy, stride, padding)):
        assert_close(grad, wanted)


def test_a_bias_gradient_of_many_numbers_that_cancel_is_right_to_the_last_digits():
    """The gradients of version v1's spatial weights sum 65,536 numbers at 256 x 256 to a hundredth of each other."""
    rng = np.random.default_rng(0)
    dy = np.float32(rng.random((1, 2, 256, 256)) + 1)
    dy[:, :, 128:] = -dy[:, :, :128] + np.float32(0.01 * rng.standard_normal((1, 2, 128, 256)))
    _, grads = run(conv2d, [np.ones_like(dy), np.ones((2, 2, 1, 1)), np.zeros(2)], dy)
    assert_close(grads[2], dy.sum((0, 2, 3), dtype=np.float64), 1e-6)


def test_gradient_reaches_a_sliced_weight():
    """The first convolution is computed in two parts, of the image and of the mask."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 1, 5, 6)), rng.standard_normal((4, 3, 3, 3))
    expected = numeric.conv2d(x, weight[:, 2:], padding=1)
    dy = rng.standard_normal(expected.shape)
    y, (_, grad) = run(lambda x, weight: conv2d(x, weight[:, 2:], padding=1), [x, weight], dy)
    assert_close(y, expected)
    assert_close(grad[:, 2:], numeric.conv2d_gradients(x, weight[:, 2:], dy, padding=1)[1])
    np.testing.assert_array_equal(grad[:, :2], 0)


def test_the_independent_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 2, 5, 4)), rng.standard_normal((3, 2, 3, 3))
    dy = rng.standard_normal((2, 3, 3, 2))
    dx, dw, _ = numeric.conv2d_gradients(x, weight, dy, stride=2, padding=1)
    assert_close(dx, numeric.gradient(lambda x: (numeric.conv2d(x, weight, None, 2, 1) * dy).sum(), x), 1e-8)
    assert_close(dw, numeric.gradient(lambda w: (numeric.conv2d(x, w, None, 2, 1) * dy).sum(), weight), 1e-8)


def given(shape, outputs, kernel=3, seed=0):
    """x, weight, a bias for each sample, a residual, and dy, of maps that keep their size."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    weight = rng.standard_normal((outputs, c, kernel, kernel)) / np.sqrt(c * kernel**2)
    arrays = [rng.standard_normal(shape), weight, rng.standard_normal((n, outputs))]
    return [*arrays, rng.standard_normal((n, outputs, h, w))], rng.standard_normal((n, outputs, h, w))


def with_everything(function):
    return lambda x, weight, bias, residual: function(x, weight, bias, 1, weight.shape[2] // 2, residual)


def expected(x, weight, bias, residual, dy):
    padding = weight.shape[2] // 2
    y = numeric.conv2d(x, weight, padding=padding) + bias[:, :, None, None] + residual
    dx, dw, _ = numeric.conv2d_gradients(x, weight, dy, padding=padding)
    return y, [dx, dw, dy.sum((2, 3)), dy]


# Maps of 24 x 24, or 16 x 16, and more of 32 channels and more go through Winograd's transform.
SHAPES = [((2, 32, 24, 28), 48, 3), ((3, 40, 27, 25), 32, 3), ((2, 5, 6, 7), 9, 3), ((2, 33, 9, 5), 17, 1)]
# More samples than go through our transform at a time, and more inputs than are summed at a time.
SHAPES += [((9, 34, 16, 17), 37, 3), ((1, 133, 24, 25), 33, 3)]
# Whole tiles in rows, several runs of them; 8 x 8, of which there are five; weights larger than a sample's maps; maps
# that are larger than what stays in the cache.
TILES = [((3, 40, 36, 32), 24, 3), ((3, 64, 8, 8), 72, 3), ((2, 48, 33, 16), 40, 1), ((2, 3, 12, 48), 33, 3)]
TILES.append(((1, 24, 272, 128), 20, 1))
# Narrow maps, rows of whose tiles lie side by side; odd sizes; inputs without a pair; runs that cross rows of tiles.
NARROW = [((6, 35, 11, 7), 45, 3), ((3, 33, 8, 9), 32, 3), ((2, 32, 7, 40), 50, 3), ((1, 36, 18, 72), 36, 3)]


@pytest.mark.parametrize(("shape", "outputs", "kernel"), SHAPES)
@pytest.mark.parametrize("function", [conv2d, reference.conv2d])
def test_a_bias_for_each_sample_and_a_residual(function, shape, outputs, kernel):
    arrays, dy = given(shape, outputs, kernel)
    y, grads = run(with_everything(function), arrays, dy)
    wanted, wanted_grads = expected(*arrays, dy)
    assert_close(y, wanted)
    for grad, other in zip(grads, wanted_grads):
        assert_close(grad, other)


@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize("size", [9, 32])
def test_an_empty_batch_has_a_gradient_of_zero(size, inside):
    for samples in (2, 0):  # what the first leaves in memory is not the second's
        arrays, dy = given((samples, 32, size, size), 32, 3)
        with precision.using(inside):
            y, grads = run(with_everything(conv2d), arrays, dy)
    assert y.shape == (0, 32, size, size)
    assert grads[1].shape == (32, 32, 3, 3)
    assert not grads[1].any()


@needs_bf16
@pytest.mark.parametrize("shape, outputs, kernel", [*SHAPES, *TILES, *NARROW, ((2, 32, 20, 21), 32, 3)])
def test_bfloat16_inside_has_errors_of_its_rounding_only(shape, outputs, kernel, monkeypatch):
    """Inputs are rounded to 8 bits of mantissa, an error of at most 2^-9 each; sums are float32.

    F(2x2, 3x3) rounds sums of inputs: there the bound holds for maps as even as these, not for all.
    """
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", "bf16")
    arrays, dy = given(shape, outputs, kernel)
    with precision.using("bf16"):
        function = with_everything(conv2d)
        inputs = [jt.array(np.float32(array)) for array in arrays]
        y = function(*inputs)
    # The gradient is taken outside: it remembers.
    grads = jt.grad((y * jt.array(np.float32(dy))).sum(), inputs)
    wanted, wanted_grads = expected(*arrays, dy)
    x, weight, *_ = arrays
    bound = 2.0**-8 * numeric.conv2d(abs(x), abs(weight), padding=kernel // 2)
    assert (abs(y.numpy() - wanted) <= bound + 1e-5).all()
    dx, dw, _ = numeric.conv2d_gradients(abs(x), abs(weight), abs(dy), padding=kernel // 2)
    for grad, other, bound in zip(grads, wanted_grads, [dx, dw]):
        assert (abs(grad.numpy() - other) <= 2.0**-8 * bound + 1e-5).all()
    for grad, other in zip(grads[2:], wanted_grads[2:]):
        assert_close(grad.numpy(), other)
    assert abs(y.numpy() - wanted).max() > 1e-4  # it was bfloat16


@needs_bf16
@pytest.mark.parametrize("size", [8, 16, 32])
def test_bfloat16_rounds_hardly_more_than_its_inputs_do(size):
    """F(2x2, 3x3) rounds sums of them, which adds two thirds to the error; F(4x4, 3x3) would make it fourfold."""
    (x, weight, *_), _ = given((1, 64, size, size), 32)
    exact = numeric.conv2d(x, weight, padding=1)
    rounded = [jt.array(np.float32(value)).bfloat16().float32().numpy().astype(float) for value in (x, weight)]
    with precision.using("bf16"):
        y = conv2d(jt.array(np.float32(x)), jt.array(np.float32(weight)), padding=1).numpy()
    assert np.std(y - exact) < 2 * np.std(numeric.conv2d(*rounded, padding=1) - exact)


@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize(("shape", "outputs", "kernel"), [*SHAPES, *NARROW])
def test_threads_do_not_change_it(inside, shape, outputs, kernel):
    arrays, dy = given(shape, outputs, kernel)

    def results():
        with precision.using(inside):
            y, grads = run(with_everything(conv2d), arrays, dy)
        return [y, grads[0]]

    together, before = results(), set_threads(1)
    try:
        for one, other in zip(results(), together):
            np.testing.assert_array_equal(one, other)
    finally:
        set_threads(before)


@pytest.mark.parametrize("large", ["fp32", "bf16"])
@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize(("shape", "outputs", "kernel"), [*SHAPES, *TILES, *NARROW])
def test_a_sample_is_the_same_in_every_batch(inside, shape, outputs, kernel, large, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", large)
    (x, weight, *_), _ = given((4, *shape[1:]), outputs, kernel)
    x, weight = jt.array(np.float32(x)), jt.array(np.float32(weight))
    with precision.using(inside), jt.no_grad():
        whole = conv2d(x, weight, padding=kernel // 2, packed=Packed()).numpy()
        for rows in (slice(0, 1), slice(1, 4), slice(3, 4)):
            part = conv2d(x[rows], weight, padding=kernel // 2, packed=Packed())
            np.testing.assert_array_equal(part.numpy(), whole[rows])


@needs_bf16
@pytest.mark.parametrize(("shape", "outputs", "kernel"), SHAPES[:2])
def test_large_maps_may_stay_float32_in_bfloat16(shape, outputs, kernel, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", "fp32")
    arrays, dy = given(shape, outputs, kernel)
    with precision.using("bf16"):  # the gradient is taken within it, too
        y, grads = run(with_everything(conv2d), arrays, dy)
    wanted, wanted_grads = expected(*arrays, dy)
    assert_close(y, wanted)
    for grad, other in zip(grads, wanted_grads):
        assert_close(grad, other)


def test_no_gradient_is_computed_for_an_input_without_one():
    (x, weight, *_), dy = given((2, 5, 6, 7), 9)
    x, weight = jt.array(np.float32(x)).stop_grad(), jt.array(np.float32(weight))
    (grad,) = jt.grad((conv2d(x, weight, padding=1) * jt.array(np.float32(dy))).sum(), [weight])
    assert_close(grad.numpy(), numeric.conv2d_gradients(x.numpy(), weight.numpy(), dy, padding=1)[1])


@needs_bf16
@pytest.mark.parametrize("change", ["assign", "update"])
def test_packed_weights_follow_the_weights(change):
    (x, first, *_), _ = given((1, 32, 9, 9), 32)
    x, weight, packed = jt.array(np.float32(x)), jt.array(np.float32(first)), Packed()

    def result():
        with precision.using("bf16"), jt.no_grad():
            return conv2d(x, weight, padding=1, packed=packed).numpy()

    assert_close(result(), numeric.conv2d(x.numpy(), first, padding=1), 1e-2)
    kept = packed._value
    assert kept is not None
    np.testing.assert_array_equal(result(), result())
    assert packed._value is kept
    getattr(weight, change)(weight * 2)
    assert_close(result(), numeric.conv2d(x.numpy(), 2 * first, padding=1), 1e-2)
    assert packed._value is not kept


@needs_bf16
def test_packed_weights_follow_the_precision():
    (x, weight, *_), _ = given((1, 8, 9, 9), 16)
    x, weight, packed = jt.array(np.float32(x)), jt.array(np.float32(weight)), Packed()
    exact = numeric.conv2d(x.numpy(), weight.numpy(), padding=1)
    for inside, tolerance in (("fp32", 2e-5), ("bf16", 1e-2), ("fp32", 2e-5)):
        with precision.using(inside), jt.no_grad():
            assert_close(conv2d(x, weight, padding=1, packed=packed).numpy(), exact, tolerance)


@pytest.mark.parametrize("inside", ["fp32", BF16])
def test_weights_that_were_taken_live_on_packed(inside):
    (x, weight, *_), _ = given((2, 32, 9, 9), 48)
    x, weight, whole, alone = jt.array(np.float32(x)), jt.array(np.float32(weight)), Packed(), Packed()
    alone.take(jt.array(weight.numpy()))
    with jt.no_grad():
        with precision.using(inside):
            wanted = conv2d(x, weight, padding=1, packed=whole).numpy()
            for _ in range(2):
                np.testing.assert_array_equal(conv2d(x, None, padding=1, packed=alone).numpy(), wanted)
            assert alone._taken is None
            with pytest.raises(RuntimeError, match="one size of maps"):
                conv2d(x[:, :, :5], None, padding=1, packed=alone)
        other = "fp32" if inside == "bf16" else "bf16"
        if not precision.unavailable(other):
            with precision.using(other), pytest.raises(RuntimeError, match="one precision"):
                conv2d(x, None, padding=1, packed=alone)
    with pytest.raises(RuntimeError, match="cannot be trained"):
        alone.forget()


@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize(("shape", "outputs", "kernel"), [*SHAPES, *TILES, *NARROW])
def test_packed_weights_fill_their_memory_and_no_more(inside, shape, outputs, kernel):
    low, behind, untouched = inside == "bf16", 64, 0.7
    geometry = convolution.geometry_of(shape, outputs, kernel, 1, kernel // 2, low)
    if geometry["winograd"] and not geometry["low"]:
        pytest.skip("these stay as they are")
    size = convolution.packed_size(**geometry)
    source = f"std::fill_n(out0_p, out0->num, {untouched}f);" + convolution._PACK
    weight = jt.array(np.float32(given(shape, outputs, kernel)[0][1]))
    (packed,) = convolution.run_code([[size + behind]], [weight], source, geometry)
    written = packed.numpy() != np.float32(untouched)
    assert not written[size:].any()
    assert written[size - 32 : size].any()  # up to two lines of the cache are left free


def test_taken_weights_of_large_maps_stay_as_they_are_in_float32():
    """Winograd's transform would make four times as much of them."""
    (x, weight, *_), _ = given((2, 32, 24, 25), 48)
    x, weight, alone = jt.array(np.float32(x)), jt.array(np.float32(weight)), Packed()
    alone.take(weight)
    with jt.no_grad():
        wanted = conv2d(x, weight, padding=1, packed=Packed()).numpy()
        np.testing.assert_array_equal(conv2d(x, None, padding=1, packed=alone).numpy(), wanted)
    assert alone._taken is not None and alone._value is None


def normed(function, groups, silu):
    """`function` of what a norm makes of x."""
    return lambda x, weight, bias, residual, *norm: function(
        x, weight, bias, 1, weight.shape[2] // 2, residual, norm=Norm(*norm, groups, silu)
    )


def in_two(x, weight, bias, residual, norm_weight, norm_bias, groups, silu):
    return with_everything(conv2d)(group_norm(x, norm_weight, norm_bias, groups, silu), weight, bias, residual)


NORMED = [
    ((2, 32, 24, 28), 48, 3, 32),
    ((3, 40, 27, 25), 32, 3, 5),
    ((2, 6, 6, 7), 9, 3, 2),
    ((2, 96, 9, 5), 17, 1, 32),
    ((2, 64, 8, 16), 72, 3, 32),
]


@pytest.mark.parametrize("silu, shared", [(False, False), (True, False), (True, True)], ids=["plain", "silu", "shared"])
@pytest.mark.parametrize(("shape", "outputs", "kernel", "groups"), NORMED)
@pytest.mark.parametrize("function", [conv2d, reference.conv2d], ids=["cpu", "reference"])
def test_a_norm_before_it(function, shape, outputs, kernel, groups, silu, shared):
    """Its values and gradients are those of the norm and the convolution one after another."""
    arrays, dy = given(shape, outputs, kernel)
    rng = np.random.default_rng(1)
    arrays[0] = 3 + 2 * arrays[0]
    size = (1 if shared else shape[0], shape[1])
    arrays += [1 + rng.standard_normal(size), rng.standard_normal(size)]
    y, grads = run(normed(function, groups, silu), arrays, dy)
    wanted, wanted_grads = run(lambda *values: in_two(*values, groups, silu), arrays, dy)
    assert_close(y, wanted)
    for grad, other in zip(grads, wanted_grads):
        assert_close(grad, other, 1e-4)


@needs_bf16
@pytest.mark.parametrize(("shape", "outputs", "kernel", "groups"), NORMED)
def test_a_norm_before_it_in_bfloat16(shape, outputs, kernel, groups, monkeypatch):
    """The norm is float32, only its result is rounded, as it is where both are computed one after another."""
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", "bf16")
    arrays, dy = given(shape, outputs, kernel)
    rng = np.random.default_rng(1)
    arrays += [1 + rng.standard_normal(shape[:2]), rng.standard_normal(shape[:2])]
    with precision.using("bf16"):
        y, grads = run(normed(conv2d, groups, True), arrays, dy)
        wanted, wanted_grads = run(lambda *values: in_two(*values, groups, True), arrays, dy)
    assert_close(y, wanted, 1e-3)  # what differs in the last bit may be rounded differently
    for grad, other in zip(grads, wanted_grads):
        assert_close(grad, other, 1e-3)


@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize(("shape", "outputs", "kernel", "groups"), NORMED)
def test_a_normed_sample_is_the_same_in_every_batch(inside, shape, outputs, kernel, groups):
    (x, weight, bias, residual), _ = given((4, *shape[1:]), outputs, kernel)
    values = [np.float32(a) for a in (x, bias, residual, *np.random.default_rng(2).standard_normal((2, 4, shape[1])))]
    weight = jt.array(np.float32(weight))

    def result(rows):
        x, bias, residual, *norm = (jt.array(value[rows]) for value in values)
        norm = Norm(*norm, groups, True)
        return conv2d(x, weight, bias, 1, kernel // 2, residual, packed=Packed(), norm=norm).numpy()

    with precision.using(inside), jt.no_grad():
        whole = result(slice(None))
        for rows in (slice(0, 1), slice(1, 4), slice(3, 4)):
            np.testing.assert_array_equal(result(rows), whole[rows])


def test_a_norm_learns_from_an_input_without_a_gradient():
    arrays, dy = given((2, 6, 6, 7), 9)
    arrays += [np.ones((2, 6)), np.zeros((2, 6))]
    _, wanted = run(lambda *values: in_two(*values, 2, True), arrays, dy)
    values = [jt.array(np.float32(a)) for a in arrays]
    y = normed(conv2d, 2, True)(values[0].stop_grad(), *values[1:])
    grads = jt.grad((y * jt.array(np.float32(dy))).sum(), values[1:])
    for grad, other in zip(grads, wanted[1:]):
        assert_close(grad.numpy(), other, 1e-4)
