import numpy as np
import pytest

from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import weights
from medsegdiff.nn.layers import set_dropout
from medsegdiff.nn.versions import build_network
from medsegdiff.parity import kinks
from medsegdiff.runtime.backend import jt


@pytest.fixture(scope="module")
def network():
    config = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
    network = build_network(config).initialise(1)
    set_dropout(network, 0.0)
    network.train()
    return network


@pytest.fixture
def measure(network):
    image = generator("image").random((2, 3, 32, 32), dtype=np.float32)
    parameters = {name: p for name, p in weights.parameters(network).items() if name.startswith("hwm.")}

    def measure():
        cal = network.hwm(jt.array(image)).cal
        return dict(zip(parameters, jt.grad((cal * cal).sum(), list(parameters.values()))))

    return measure


def errors_from(stored):
    def errors(found):
        return {
            name: float(np.abs(found[name].numpy() - value).max() / np.abs(value).max())
            for name, value in stored.items()
            if name in found and not name.endswith("conv.bias")  # before a norm: no gradient
        }

    return errors


def arrays(gradients):
    return {name: value.numpy() for name, value in gradients.items()}


@pytest.fixture
def elsewhere(network, measure, monkeypatch):
    """The two activations nearest to zero in two units, and the gradients of a machine that rounds them over it."""
    monkeypatch.setattr(kinks, "REACH", 3e-3)
    sides = kinks.Sides()
    with sides.watching(network):
        measure()
        units = [unit for unit, near in sides.near.items() if len(near) > 2]
        sides.moved = [min(sides.near[unit], key=lambda kink: abs(kink.value)) for unit in (units[1], units[-1])]
        stored = arrays(measure())
    return sides.moved, stored


def test_activations_on_their_other_side_are_found(network, measure, elsewhere):
    moved, stored = elsewhere
    errors = errors_from(stored)
    assert max(errors(measure()).values()) > 1e-3
    measured = []

    def counted():
        measured.append(measure())
        return measured[-1]

    gradients, found = kinks.search(network, counted, errors, 1e-4)
    assert {(kink.unit, kink.index) for kink in found} == {(kink.unit, kink.index) for kink in moved}
    assert len(measured) == 1 + len(moved)  # the nearest to zero first, and no other once that explains it
    assert max(errors(gradients).values()) < 1e-4


def test_an_error_of_another_kind_stays_one(network, measure, elsewhere):
    stored = {name: value * 1.01 for name, value in arrays(measure()).items()}
    gradients, found = kinks.search(network, measure, errors_from(stored), 1e-4)
    assert found == []
    assert max(errors_from(stored)(gradients).values()) > 5e-3


def test_nothing_is_moved_where_nothing_is_off(network, measure):
    before = arrays(measure())
    gradients, found = kinks.search(network, measure, errors_from(before), 1e-4)
    assert found == []
    for name, value in before.items():
        np.testing.assert_allclose(gradients[name].numpy(), value, atol=1e-5 * np.abs(value).max() + 1e-6)
    assert "execute" not in vars(network.hwm.conv_blocks_context[0].blocks[0].instnorm)  # the watch is over
