import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.nn import weights
from medsegdiff.nn.layers import BatchNorm2d, Linear
from medsegdiff.runtime.backend import jt, nn
from tests.nn.filled import fill


@pytest.fixture
def network():
    return fill(nn.Sequential(Linear(3, 4), BatchNorm2d(4)))


def arrays(network):
    return weights.to_arrays(weights.state(network))


def changed(network):
    return {name: value + 1 for name, value in arrays(network).items()}


def test_state_is_parameters_and_running_statistics(network):
    statistics = {"1.running_mean", "1.running_var"}
    trained = {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert set(weights.state(network)) == trained | statistics
    assert set(weights.parameters(network)) == trained
    assert {name for name in weights.state(network) if weights.is_buffer(name)} == statistics


def test_load_puts_every_array_in(network):
    wanted = changed(network)
    weights.load(network, wanted)
    for name, value in arrays(network).items():
        np.testing.assert_array_equal(value, wanted[name])
        assert value.dtype == np.float32
    x = np.ones((2, 3), np.float32)
    expected = x @ wanted["0.weight"].T + wanted["0.bias"]
    np.testing.assert_allclose(network[0](jt.array(x)).numpy(), expected, rtol=1e-5)


def test_load_accepts_float64_and_views(network):
    wanted = changed(network)
    given = {name: np.repeat(value.astype(np.float64), 2, axis=0)[::2] for name, value in wanted.items()}
    weights.load(network, given)
    for name, value in arrays(network).items():
        np.testing.assert_array_equal(value, wanted[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: [given.pop("0.bias"), given.pop("1.running_var")], "2 parameters missing, 0 unknown, 0 of"),
        (lambda given: given.update({"0.gain": np.ones(3)}), r"0 parameters missing, 1 unknown.*first: 0\.gain"),
        (
            lambda given: given.update({"0.weight": np.ones((3, 4))}),
            r"0 parameters missing, 0 unknown, 1 of another shape \(first: 0\.weight, \(3, 4\) instead of \(4, 3\)\)",
        ),
        (
            lambda given: [given.update({"1.weight": np.ones(5), "2.bias": np.ones(1)}), given.pop("0.weight")],
            r"1 parameters missing, 1 unknown, 1 of another shape \(first: 0\.weight",
        ),
    ],
)
def test_what_does_not_fit_is_counted_and_nothing_changes(network, change, message):
    before, given = arrays(network), changed(network)
    change(given)
    with pytest.raises(InputError, match=message) as caught:
        weights.load(network, given, "model.safetensors")
    assert str(caught.value).startswith("model.safetensors: made for another network")
    for name, value in arrays(network).items():
        np.testing.assert_array_equal(value, before[name])


def test_copies_do_not_follow_the_network(network):
    copy = arrays(network)
    kept = copy["0.weight"].copy()
    weights.load(network, changed(network))
    np.testing.assert_array_equal(copy["0.weight"], kept)
