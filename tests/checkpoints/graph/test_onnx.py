import functools
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")

from medsegdiff.base.errors import InputError  # noqa: E402
from medsegdiff.checkpoints.graph.networks import shapes  # noqa: E402
from medsegdiff.checkpoints.graph.onnx import graphs  # noqa: E402
from medsegdiff.config.network import NetworkConfig  # noqa: E402
from medsegdiff.parity import cases  # noqa: E402

FOLDER = Path(__file__).parents[2] / "parity" / "cases"
SMALL = {"image_size": 64, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2"}
DEEP = {**SMALL, "channel_mult": "1,1,2,2"}
CONFIGS = {
    "new": NetworkConfig(**SMALL),
    "v1": NetworkConfig(**SMALL, version="v1"),
    "v1, deep": NetworkConfig(
        image_size=64, num_channels=32, num_res_blocks=1, version="v1", channel_mult="1,1,1,1,2,2"
    ),
    "v2": NetworkConfig(**DEEP, version="v2"),
    "v2, otherwise": NetworkConfig(
        **DEEP, version="v2", anchor_levels=2, spectrum="sine", attention_norm="softmax", image_input=False
    ),
    "v2, plain attention": NetworkConfig(**DEEP, version="v2", ssformer="cross"),
    "everything": NetworkConfig(
        **SMALL,
        attention_resolutions="32",
        use_scale_shift_norm=True,
        resblock_updown=True,
        use_new_attention_order=True,
        num_heads=2,
        learn_sigma=False,
        image_channels=4,
        num_classes=4,
        class_cond=True,
        version="v1",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def parameters_drawn_once():
    """The parameters of a published network are 100 million numbers; cases share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "parameter", functools.cache(cases.parameter))
        yield


def arrays_of(config):
    return {name: cases.parameter(name, shape) for name, shape in shapes(config).items()}


def compute(models, image, mask, t, label=None):
    """All outputs of both graphs by name."""
    found = {"image": image, "mask": mask, "t": np.asarray(t, np.float32), "label": label}
    for name in ("encode", "denoise"):
        session = onnxruntime.InferenceSession(models[name].SerializeToString(), providers=["CPUExecutionProvider"])
        feed = {given.name: found[given.name] for given in session.get_inputs()}
        found.update(zip([given.name for given in session.get_outputs()], session.run(None, feed)))
    return found


# What these compute is compared with the original in the others too, or below with the network on Jittor, which parity
# compares with the original in these very cases.
ALIKE = {"new-64", "new-64-classcond", "new-128", "v1-256", "v2-64", "v2-128"}


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "half"),
    [
        *(
            pytest.param(file.stem, False, marks=[pytest.mark.extended] if file.stem[8:] in ALIKE else [])
            for file in sorted(FOLDER.glob("forward-*.npz"))
        ),
        ("forward-new-64", True),
    ],
)
def test_a_graph_equals_the_original(name, half):
    case = cases.load(FOLDER / f"{name}.npz")
    models = graphs(case.network, arrays_of(case.network), half)
    label = case.meta.get("y")
    mask = cases.normal(f"{case.name}:x_t", case.mask_shape)
    found = compute(models, case.image(), mask, case.arrays["t"], None if label is None else np.array(label))
    out = np.concatenate([found["target"], found["variance"]], axis=1)
    assert np.abs(out - case.arrays["out"]).max() <= (5e-3 if half else 2e-4)
    assert np.abs(found["cal"] - case.arrays["cal"]).max() <= (1e-3 if half else 2e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_graph_equals_the_network_on_jittor(name):
    from medsegdiff.nn import weights
    from medsegdiff.nn.versions import build_network
    from medsegdiff.runtime.backend import jt

    config, rng = CONFIGS[name], np.random.default_rng(0)
    arrays = arrays_of(config)
    network = build_network(config)
    weights.load(network, arrays)
    network.eval()
    image = rng.random((2, config.image_channels, 64, 64), np.float32)
    mask = rng.standard_normal((2, config.mask_channels, 64, 64), np.float32)
    label = np.array([0, 1]) if config.class_cond else None
    models = graphs(config, arrays)
    for model in models.values():
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version >= 18
    found = compute(models, image, mask, [3, 70.5], label)
    with jt.no_grad():
        wanted = network(
            *map(jt.array, (image, mask, np.float32([3, 70.5]))), None if label is None else jt.array(label)
        )
    assert ("variance" in found) == config.learn_sigma
    for part in ("target", "variance", "cal"):
        if part in found:
            assert np.abs(found[part] - getattr(wanted, part).numpy()).max() <= 2e-4, part


def test_one_timestep_serves_all_rows_and_batches_have_any_size():
    config, rng = CONFIGS["new"], np.random.default_rng(0)
    models = graphs(config, arrays_of(config))
    image, mask = rng.random((3, 3, 64, 64), np.float32), rng.standard_normal((3, 1, 64, 64), np.float32)
    together = compute(models, image, mask, [9])["target"]
    np.testing.assert_array_equal(together, compute(models, image, mask, [9, 9, 9])["target"])
    alone = [compute(models, image[[row]], mask[[row]], [9])["target"][0] for row in range(3)]
    np.testing.assert_array_equal(together, alone)


def test_half_the_precision_takes_half_the_space():
    config = CONFIGS["v1"]
    whole, half = (graphs(config, arrays_of(config), half)["denoise"] for half in (False, True))
    assert half.ByteSize() < 0.6 * whole.ByteSize()
    image, mask = np.ones((1, 3, 64, 64), np.float32), np.ones((1, 1, 64, 64), np.float32)
    exact = compute(graphs(config, arrays_of(config)), image, mask, [1])["target"]
    narrow = compute(graphs(config, arrays_of(config), True), image, mask, [1])["target"]
    assert 0 < np.abs(narrow - exact).max() < 0.02


def test_a_network_larger_than_a_graph_can_be_is_refused():
    config = NetworkConfig(image_size=64, num_channels=384)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(config).items()}
    with pytest.raises(InputError, match=r"the weights take 3\.\d GB, and an ONNX graph at most 2; use Jittor"):
        graphs(config, arrays)


def test_weights_larger_than_float16_can_be_are_refused():
    arrays = arrays_of(CONFIGS["new"])
    name = next(name for name in arrays if name.endswith("conv.weight") or name.endswith("in_layers.2.weight"))
    with pytest.raises(InputError, match=rf"as fp16, {name} is not finite; use precision fp32"):
        graphs(CONFIGS["new"], {**arrays, name: arrays[name] * 1e8}, half=True)
