import numpy as np
import pytest

from medsegdiff.runtime.backend import jt
from medsegdiff.training.optimiser import AdamW, Average, global_norm


def reference(p, gradients, lr, decay):
    """AdamW in float64, after Loshchilov & Hutter, algorithm 2."""
    m = v = np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        p = p * (1 - lr * decay)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - lr * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_equal_the_algorithm_in_double_precision(decay):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), [rng.normal(size=(3, 4)) * 10**k for k in (-3, 0, 1, -1)]
    parameter = jt.array(start.astype(np.float32))
    optimiser = AdamW({"p": parameter}, decay)
    for g in gradients:
        optimiser.step({"p": jt.array(g.astype(np.float32))}, lr=0.01)
    np.testing.assert_allclose(parameter.numpy(), reference(start, gradients, 0.01, decay), rtol=2e-6, atol=2e-7)


def test_a_restored_optimiser_goes_on_bit_for_bit():
    rng = np.random.default_rng(1)
    gradients = [jt.array(rng.normal(size=5).astype(np.float32)) for _ in range(4)]
    straight = jt.ones((5,))
    optimiser = AdamW({"p": straight})
    for k, g in enumerate(gradients):
        optimiser.step({"p": g}, lr=0.1)
        if k == 1:
            saved, weights = {n: v.numpy().copy() for n, v in optimiser.state().items()}, straight.numpy().copy()
    again = jt.array(weights)
    resumed = AdamW({"p": again})
    resumed.load(saved, count=2)
    for g in gradients[2:]:
        resumed.step({"p": g}, lr=0.1)
    np.testing.assert_array_equal(again.numpy(), straight.numpy())


def test_an_average_warms_up_then_keeps_its_rate():
    source = jt.array(np.float32([1.0]))
    average = Average({"p": source}, rate=0.9, warmup=True)
    expected = 1.0
    for step in range(1, 200):
        source.update(jt.array(np.float32([step])))
        average.update(step)
        rate = min(0.9, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * step
    assert average.values["p"].item() == pytest.approx(expected, rel=1e-5)
    plain = Average({"p": source}, rate=0.5, warmup=False)
    source.update(jt.array(np.float32([0.0])))
    plain.update(1)
    assert plain.values["p"].item() == pytest.approx(199 / 2)


def test_the_global_norm_is_over_all_values():
    values = {"a": jt.array(np.float32([3, 0])), "b": jt.array(np.float32([[4]]))}
    assert global_norm(values).item() == pytest.approx(5)


def test_biases_and_norms_are_spared_from_decay_on_demand():
    shapes = {"conv.weight": (2, 3, 3, 3), "conv.bias": (2,), "norm.weight": (2,), "linear.weight": (4, 2)}
    for decay_all, spared in ((True, set()), (False, {"conv.bias", "norm.weight"})):
        parameters = {name: jt.ones(shape) for name, shape in shapes.items()}
        optimiser = AdamW(parameters, weight_decay=0.5, decay_all=decay_all)
        optimiser.step({name: jt.zeros(shape) for name, shape in shapes.items()}, lr=0.1)
        for name, value in parameters.items():
            np.testing.assert_allclose(value.numpy(), 1.0 if name in spared else 0.95, rtol=1e-6, err_msg=name)


def test_a_scaled_gradient_is_what_is_taken_in():
    ours, theirs = jt.ones((3,)), jt.ones((3,))
    AdamW({"p": ours}).step({"p": jt.array(np.float32([1, 2, 3]))}, lr=0.1, scale=0.25)
    AdamW({"p": theirs}).step({"p": jt.array(np.float32([0.25, 0.5, 0.75]))}, lr=0.1)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
