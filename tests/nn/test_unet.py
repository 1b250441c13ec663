import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels import precision
from medsegdiff.nn import weights
from medsegdiff.nn.versions import build_network
from medsegdiff.runtime.backend import jt
from tests.nn.filled import arrays_of, fill
from tests.processor import BF16

CASES = Path(__file__).parents[1] / "parity" / "cases"
EVERYTHING = {
    "class_cond": True,
    "num_label_classes": 3,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": True,
    "num_heads": 2,
    "learn_sigma": False,
    "image_channels": 4,
    "num_classes": 3,
}
KINDS = {
    "new": {},
    "v1-32": {"version": "v1"},
    "v1-64": {"version": "v1", "image_size": 64},
    "v2": {"version": "v2"},
    "everything": EVERYTHING,
    "v2-everything": {
        **EVERYTHING,
        "version": "v2",
        "image_input": False,
        "anchor_levels": 2,
        "ssformer_blocks": 1,
        "spectrum": "sine",
        "attention_norm": "softmax",
    },
}


@pytest.fixture(scope="module")
def networks():
    """A function that gives the network of a kind, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            config = NetworkConfig(**{"image_size": 32, "num_channels": 32, "num_res_blocks": 1, **KINDS[kind]})
            made[kind] = fill(build_network(config))
        return made[kind]

    return get


def inputs(network, count=2, seed=0):
    rng, config = np.random.default_rng(seed), network.config
    size = config.image_size
    image = rng.random((count, config.image_channels, size, size), dtype=np.float32)
    mask = rng.standard_normal((count, config.mask_channels, size, size), dtype=np.float32)
    t = np.array([3, 70.5, 12][:count], np.float32)
    label = jt.array(np.array([0, 2, 1][:count], np.int32)) if config.class_cond else None
    return jt.array(image), jt.array(mask), jt.array(t), label


def assert_same(one, other, atol=1e-5):
    for a, b in zip(one, other):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_ranges(networks, kind):
    network = networks(kind)
    _, mask, *_ = given = inputs(network)
    prediction = network(*given)
    learned = network.config.learn_sigma
    assert (prediction.variance is not None) == learned
    for value in prediction[:1] + prediction[2:] + (prediction[1:2] if learned else ()):
        assert value.shape == mask.shape
        array = value.numpy()
        assert np.isfinite(array).all()
        assert array.std() > 1e-3
    cal = prediction.cal.numpy()
    assert (cal >= 0).all()
    assert (cal <= 1).all()
    assert network.out[2].weight.shape[0] == network.config.out_channels


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_once_serves_every_step(networks, kind):
    network = networks(kind)
    image, mask, t, label = inputs(network)
    condition = network.encode(image, label)
    for factor, time in [(1, t), (0.3, t + 7)]:
        prediction = network.denoise(mask * factor, time, condition)
        assert_same(prediction, network(image, mask * factor, time, label))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_condition_may_repeat(networks, kind):
    """As for an ensemble: many masks for few images."""
    network = networks(kind)
    image, mask, t, label = inputs(network, 3)
    rows = np.array([1, 0, 1])
    together = network.denoise(mask, t, network.encode(image, label).take(rows))
    for place, row in enumerate(rows):
        alone = network.denoise(
            mask[place : place + 1],
            t[place : place + 1],
            network.encode(image[row : row + 1], None if label is None else label[row : row + 1]),
        )
        assert_same(alone, [None if value is None else value[place : place + 1] for value in together], atol=1e-4)


@pytest.mark.parametrize(("kind", "depends"), [("new", False), ("everything", False), ("v2", False), ("v1-32", True)])
def test_cal_depends_on_the_mask_in_v1_only(networks, kind, depends):
    network = networks(kind)
    image, mask, t, label = inputs(network)
    one, other = (network(image, mask * factor, t, label) for factor in (1, 2))
    assert not np.allclose(one.target.numpy(), other.target.numpy(), atol=1e-4)
    assert np.array_equal(one.cal.numpy(), other.cal.numpy()) != depends


@pytest.mark.parametrize("kind", ["everything", "v2-everything"])
def test_time_image_and_label_all_matter(networks, kind):
    network = networks(kind)
    image, mask, t, label = inputs(network)
    first = network(image, mask, t, label).target.numpy()
    for other in [
        (image, mask, t + 40, label),
        (image * 0.5, mask, t, label),
        (image, mask, t, jt.array(np.array([1, 2], np.int32))),
    ]:
        changed = np.abs(network(*other).target.numpy() - first).max(axis=(1, 2, 3))
        assert changed[0] > 1e-4
    assert changed[1] < 1e-5  # the second sample's label stayed


@pytest.mark.parametrize("kind", ["new", "everything"])
def test_a_label_goes_with_class_conditioning_only(networks, kind):
    network = networks(kind)
    image, *_ = inputs(network)
    label = None if network.config.class_cond else jt.array(np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="class conditioning"):
        network.encode(image, label)


def test_v1_gives_its_bottleneck_to_the_denoiser(networks):
    network = networks("v1-64")
    given = inputs(network)
    before = network(*given).target.numpy()
    projection = network.hwm.bottleneck_proj
    kept = projection.bias.numpy().copy()
    projection.bias.assign(jt.array(kept + 1))
    after = network(*given).target.numpy()
    projection.bias.assign(jt.array(kept))
    assert np.abs(after - before).max() > 1e-3


def test_initial_weights_depend_on_the_seed_and_the_name_alone():
    def small(**options):
        return NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1, channel_mult="1,1", **options)

    network = build_network(small())
    first = arrays_of(network.initialise(5))
    again = arrays_of(build_network(small(class_cond=True)).initialise(5))  # has one layer more
    other = arrays_of(build_network(small()).initialise(6))
    assert set(first) < set(again)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    drawn = [name for name, value in first.items() if value.ndim > 1 and value.any()]
    assert len(drawn) > 40
    assert all(not np.array_equal(first[name], other[name]) for name in drawn)
    assert len({first[name].tobytes() for name in drawn}) == len(drawn)


def test_an_untrained_network_predicts_no_noise():
    network = build_network(NetworkConfig(image_size=32, num_channels=32)).initialise()
    values = arrays_of(network)
    zero = [name for name in values if name.endswith(("out_layers.3.weight", "proj_out.weight", "out.2.weight"))]
    assert len(zero) > 20
    assert not any(values[name].any() for name in zero)


def names_and_shapes(case):
    stored = np.load(CASES / f"{case}.npz")
    return {
        str(name): tuple(json.loads(str(shape)))
        for name, shape in zip(stored["names"], stored["shapes"])
        if not str(name).endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("forward-new-64", {"image_size": 64}),
        ("forward-new-64-classcond", {"image_size": 64, "class_cond": True}),
        ("forward-new-128", {"image_size": 128}),
    ],
)
def test_names_and_shapes_are_the_published_ones(case, options):
    meta = json.loads(str(np.load(CASES / f"{case}.npz")["meta"]))["config"]
    names = ("num_channels", "num_res_blocks", "num_heads", "attention_resolutions", "learn_sigma", "resblock_updown")
    config = NetworkConfig(**{name: meta[name] for name in names}, **options)
    network = build_network(config)
    assert {name: tuple(value.shape) for name, value in weights.state(network).items()} == names_and_shapes(case)
    if case == "forward-new-64":
        assert sum(np.prod(value.shape) for value in weights.parameters(network).values()) == 98_686_210


@pytest.mark.parametrize("inside", ["fp32", BF16])
@pytest.mark.parametrize("kind", ["new", "v1-32", "everything", "v2", "v2-everything"])
def test_a_network_that_gave_up_weights_says_the_same(networks, kind, inside):
    network = networks(kind)
    network.eval()
    image, mask, t, label = inputs(network)
    light = build_network(network.config)
    weights.load(light, arrays_of(network))
    with precision.using(inside):
        light.only_segment().eval()
    held = {name for name in weights.state(light) if name.endswith("weight")}
    assert held < {name for name in weights.state(network) if name.endswith("weight")}
    with jt.no_grad(), precision.using(inside):
        wanted = network(image, mask, t, label)
        for _ in range(2):
            assert_same(light(image, mask, t, label), wanted, atol=0)
    light.train()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        light(image, mask, t, label)


@pytest.mark.parametrize("inside", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_denoised_to_the_same_bits_alone_and_in_a_batch(networks, kind, inside):
    if precision.unavailable(inside):
        pytest.skip(precision.unavailable(inside))
    network = networks(kind)
    network.eval()
    image, mask, t, label = inputs(network, count=3)
    with jt.no_grad(), precision.using(inside):
        condition = network.encode(image, label)
        whole = network.denoise(mask, t, condition)
        for rows in ([0], [2], [1, 2]):
            part = network.denoise(mask[rows], t[rows], condition.take(rows))
            assert_same(part, [None if value is None else value[rows] for value in whole], atol=0)
