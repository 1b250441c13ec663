import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import weights
from medsegdiff.nn.layers import set_dropout
from medsegdiff.nn.ssformer import SSFormer
from medsegdiff.nn.versions import build_network
from medsegdiff.runtime.backend import jt
from tests.nn.filled import arrays_of, fill


def build(**options):
    return build_network(NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1, version="v2", **options))


@pytest.fixture
def given():
    rng = np.random.default_rng(0)
    image, mask = (np.float32(rng.random((3, channels, 32, 32))) for channels in (3, 1))
    return image, mask


def predicted(network, given, t=(4, 4, 4)):
    image, mask = given
    return network(jt.array(image), jt.array(mask), jt.array(np.float32(t))).target.numpy()


def test_it_starts_as_the_network_without_transformer(given):
    with_it, without = build(), build(ssformer="none")
    drawn, fewer = (arrays_of(network.initialise(3)) for network in (with_it, without))
    for name, value in fewer.items():
        np.testing.assert_array_equal(drawn[name], value)
    last = jt.array(np.float32(np.random.default_rng(1).standard_normal(with_it.out[2].weight.shape)))
    for network in (with_it, without):
        network.eval()
        network.out[2].weight.assign(last)  # which starts at zero too
    first = predicted(with_it, given)
    assert first.std() > 1e-2
    np.testing.assert_allclose(first, predicted(without, given), atol=1e-6)
    with_it.ssformer.out.weight.assign(jt.ones_like(with_it.ssformer.out.weight))
    assert np.abs(predicted(with_it, given) - first).max() > 1e-2


def test_in_sampling_filters_are_computed_for_one_time(given, monkeypatch):
    network, seen, plain = fill(build()), [], SSFormer.execute

    def watched(self, e, c, time, embedding):
        seen.append(time.shape[0])
        return plain(self, e, c, time, embedding)

    monkeypatch.setattr(SSFormer, "execute", watched)
    alike = predicted(network, given, (4, 4, 4))
    mixed = predicted(network, given, (4, 9, 4))
    assert seen == [1, 3]
    np.testing.assert_array_equal(alike[[0, 2]], mixed[[0, 2]])
    assert np.abs(alike[1] - mixed[1]).max() > 1e-3


@pytest.mark.parametrize("detached", [False, True])
def test_the_anchor_trains_the_conditioning_network_unless_detached(given, detached):
    network = build(ssformer="none", anchor_levels=2, anchor_detach=detached).initialise()
    network.train()
    set_dropout(network, 0)
    image, _ = given
    condition = network.encode(jt.array(image))
    parameters = weights.parameters(network.hwm)
    found = jt.grad((condition.gate.sum() + condition.half_gate.sum()), list(parameters.values()))
    assert any(value.numpy().any() for value in found) != detached


def test_the_denoiser_sees_the_image_by_the_conditioning_network_alone_where_asked(given):
    image, mask = given
    network = fill(build(image_input=False))
    assert network.input_blocks[0][0].weight.shape[1] == 1
    first, other = predicted(network, (image, mask)), predicted(network, (image[::-1].copy(), mask))
    assert np.abs(first - other).max() > 1e-3


def test_both_levels_are_gated(given):
    network = fill(build(ssformer="none", anchor_levels=2))
    first = predicted(network, given)
    for anchor in network.anchors:
        kept = anchor.gate.bias.numpy().copy()
        anchor.gate.bias.assign(jt.array(kept + 3))
        assert np.abs(predicted(network, given) - first).max() > 1e-3
        anchor.gate.bias.assign(jt.array(kept))
