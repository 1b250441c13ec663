import json
from pathlib import Path

import pytest

from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.recognise import recognise
from medsegdiff.config.network import NetworkConfig
from medsegdiff.parity import cases

FOLDER = Path(__file__).parents[2] / "parity" / "cases"
SMALL = {"image_size": 64, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1,2"}
CONFIGS = [
    NetworkConfig(**SMALL),
    NetworkConfig(**SMALL, version="v1"),
    NetworkConfig(image_size=32, num_channels=32, channel_mult="2"),
    NetworkConfig(image_size=128, num_channels=32, attention_resolutions="32,16"),
    NetworkConfig(image_size=64, num_channels=64, num_res_blocks=3, version="v1", attention_resolutions="64"),
    NetworkConfig(**SMALL, attention_resolutions="", resblock_updown=True, use_scale_shift_norm=True),
    NetworkConfig(**SMALL, version="v2"),
    NetworkConfig(**SMALL, version="v2", anchor_levels=2, spectrum="sine", image_input=False, ssformer_blocks=1),
    NetworkConfig(**SMALL, version="v2", ssformer="cross", class_cond=True),
    NetworkConfig(**SMALL, version="v2", ssformer="none", image_channels=4, num_classes=3),
    NetworkConfig(
        **SMALL,
        attention_resolutions="32",
        resblock_updown=True,
        class_cond=True,
        num_label_classes=5,
        learn_sigma=False,
        image_channels=4,
        num_classes=4,
        num_heads=2,
    ),
]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("forward-*.npz")), ids=lambda file: file.stem)
def test_names_and_shapes_are_those_of_the_published_networks(file):
    """And of version v2, of which nothing was published, those of its twin in PyTorch."""
    case = cases.load(file)
    stored = zip(case.arrays["names"], case.arrays["shapes"])
    published = {str(name): tuple(json.loads(str(shape))) for name, shape in stored}
    published = {name: shape for name, shape in published.items() if not name.endswith("num_batches_tracked")}
    ours = shapes(case.network)
    added = {name for name in ours if name.startswith("hwm.bottleneck_proj.")}  # which published files lack
    assert {name: shape for name, shape in ours.items() if name not in added} == published
    assert bool(added) == (case.network.version == "v1")


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_names_and_shapes_are_those_of_the_networks_on_jittor(config):
    from medsegdiff.nn.versions import build_network
    from medsegdiff.nn.weights import state

    assert shapes(config) == {name: tuple(value.shape) for name, value in state(build_network(config)).items()}


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_options_are_recognised_from_the_shapes(config):
    found = recognise(shapes(config), config.image_size)
    again = NetworkConfig(**found, num_heads=config.num_heads)
    assert shapes(again) == shapes(config)
    assert again.level_widths == config.level_widths
    assert (again.version, again.image_size, again.num_classes) == (
        config.version,
        config.image_size,
        config.num_classes,
    )
    assert ("image_size" in recognise(shapes(config))) == (config.version == "v1")  # others fit any


def test_what_is_no_network_of_ours_is_said():
    with pytest.raises(KeyError, match=r"input_blocks\.0\.0\.weight"):
        recognise({"conv.weight": (3, 3)})
