import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import digest
from medsegdiff.checkpoints.card import card_of
from medsegdiff.checkpoints.foreign import fit
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.load import load_any
from medsegdiff.config.network import NetworkConfig
from medsegdiff.parity import cases
from medsegdiff.parity.cases import parameter

FOLDER = Path(__file__).parents[1] / "parity" / "cases"
SMALL = {"image_size": 64, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2"}
NEW, V1 = NetworkConfig(**SMALL), NetworkConfig(**SMALL, version="v1")
UNSEEN = {"image_size": 64, "num_heads": 1, "diffusion_steps": 100}


def arrays_of(config):
    return {name: parameter(name, shape) for name, shape in shapes(config).items()}


@pytest.fixture
def write(tmp_path):
    def write(arrays, name="a.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(arrays, 4))  # as Jittor does
        return path

    return write


def test_weights_are_taken_with_options_seen_in_them_and_given(write):
    counted = {**arrays_of(NEW), "hwm.conv_blocks_context.0.blocks.0.instnorm.num_batches_tracked": np.array(7)}
    (config, arrays, source, _), notes = load_any(write(counted), options={**UNSEEN, "predict_xstart": True})
    assert notes == []
    assert source.endswith("a.pkl")
    assert config.network.level_widths == (32, 64)
    assert (config.diffusion.diffusion_steps, config.diffusion.predict_xstart) == (100, True)
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in arrays_of(NEW).items()
    }


def test_what_the_weights_do_not_tell_is_asked_for(write):
    path = write(arrays_of(NEW))
    with pytest.raises(InputError, match=r"a\.pkl: weights do not tell image_size, num_heads, diffusion_steps; give"):
        load_any(path)
    with pytest.raises(InputError, match="do not tell diffusion_steps;"):
        load_any(path, options={"image_size": 64, "num_head_channels": 32})
    with pytest.raises(InputError, match="do not tell num_heads, diffusion_steps;"):
        load_any(write(arrays_of(V1)))


def test_options_come_from_a_file_or_from_the_card_too(write, tmp_path):
    path, options = write(arrays_of(NEW)), tmp_path / "options.yaml"
    options.write_text("image_size: 64\nnum_channels: 32\nnum_res_blocks: 1\nchannel_mult: '1,2'\nlr: 1.0e-3\n")
    assert load_any(path, trained_as=options).weights.config.diffusion.diffusion_steps == 1000
    assert load_any(path, trained_as=options, options=UNSEEN).weights.config.diffusion.diffusion_steps == 100
    card_of(path).write_text(json.dumps({"config": UNSEEN}))
    assert load_any(path).weights.config.diffusion.diffusion_steps == 100
    for damaged in ("{", "[]", '{"config": 3}', '{"config": {"image_size": "64"}}', '{"config": {}, "files": 3}'):
        card_of(path).write_text(damaged)
        with pytest.raises(InputError, match=r"a\.pkl\.card\.json: damaged"):
            load_any(path)


def test_weights_that_have_changed_since_their_card_was_written_are_noted(write):
    path = write(arrays_of(NEW))
    card_of(path).write_text(json.dumps({"config": UNSEEN, "files": {"a.pt": digest(path)}}))
    assert load_any(path).notes == []
    path = write({**arrays_of(NEW), "out.0.bias": np.ones(32, np.float32)})
    (note,) = load_any(path).notes
    assert note.startswith("has changed since a.pkl.card.json was written, whose options are taken")


def test_what_a_file_of_options_leaves_out_is_as_the_weights_show(write, tmp_path):
    options = tmp_path / "options.yaml"
    options.write_text("num-channels: 32\ndry_run: false\n")  # as of version new, 256 x 256, with two blocks a level
    network = load_any(write(arrays_of(V1)), trained_as=options).weights.config.network
    assert (network.version, network.image_size, network.num_res_blocks) == ("v1", 64, 1)
    assert load_any(write(arrays_of(NEW)), trained_as=options).weights.config.network.image_size == 256
    options.write_text("version: new\n")
    with pytest.raises(InputError, match="does not fit the network of its options"):
        load_any(write(arrays_of(V1)), trained_as=options)
    for line, remedy in (("diffusion_step: 100", "did you mean diffusion_steps?"), ("7: 1", "remove it")):
        options.write_text(line)
        with pytest.raises(InputError) as caught:
            load_any(write(arrays_of(NEW)), trained_as=options)
        assert str(caught.value).endswith(f"{line.split(':')[0]}: no such option of a training; {remedy}")


def test_what_does_not_fit_is_listed(write):
    arrays = arrays_of(NEW)
    del arrays["out.0.bias"], arrays["out.0.weight"], arrays["time_embed.0.bias"]
    arrays.update({f"more.{index}": np.zeros(1, np.float32) for index in range(6)})
    arrays["time_embed.0.weight"] = np.zeros((3, 4), np.float32)
    with pytest.raises(InputError) as caught:
        load_any(write(arrays), options=UNSEEN)
    said = str(caught.value)
    assert "\n" not in said
    assert "3 missing: out.0.bias, out.0.weight, time_embed.0.bias; 6 unknown: more.0, more.1, more.2, more.3" in said
    assert "and 2 more; 1 of another shape: time_embed.0.weight (3, 4) instead of (128, 32)" in said


def test_options_that_contradict_the_weights_are_noticed(write):
    with pytest.raises(InputError, match=r"does not fit the network of its options; \d+ missing"):
        load_any(write(arrays_of(NEW)), options={**UNSEEN, "num_res_blocks": 2})


def test_a_published_file_of_version_v1_gets_the_layer_that_it_lacks(write):
    from medsegdiff.nn.versions import build_network
    from medsegdiff.nn.weights import state

    arrays = {name: array for name, array in arrays_of(V1).items() if "bottleneck_proj" not in name}
    (config, found, *_), (note,) = load_any(write(arrays), options=UNSEEN)
    assert config.network.version == "v1"
    assert "has no hwm.bottleneck_proj, which the published code draws at random in every call" in note
    network = build_network(V1).initialise()
    for name in ("hwm.bottleneck_proj.weight", "hwm.bottleneck_proj.bias"):
        np.testing.assert_array_equal(found[name], state(network)[name].numpy())


@pytest.mark.parametrize(
    ("kind", "notes"), [("float16", []), ("float64", ["float64 is rounded to float32"])], ids=["float16", "float64"]
)
def test_other_precisions_become_float32(kind, notes):
    arrays = {name: array.astype(kind) for name, array in arrays_of(NEW).items()}
    found, said = fit(arrays, NEW, "it")
    assert said == notes
    assert all(
        array.dtype == np.float32 and (array == arrays[name].astype("f4")).all() for name, array in found.items()
    )


def test_what_is_not_finite_or_something_else_is_refused(write):
    with pytest.raises(InputError, match=r"a\.pkl: cannot be used: out\.0\.bias is not finite"):
        load_any(write({**arrays_of(NEW), "out.0.bias": np.full(32, np.nan, np.float32)}), options=UNSEEN)
    with pytest.raises(InputError, match=r"holds no weights of a MedSegDiff network: it has no input_blocks"):
        load_any(write({"layer.weight": np.zeros(3, np.float32)}))
    for name, shape in {
        "input_blocks.0.0.weight": (3,),
        "out.2.weight": (),
        "output_blocks.1.1.conv.weight": (1,),
    }.items():
        changed = {**arrays_of(NEW), name: np.zeros(shape, np.float32)}
        with pytest.raises(InputError, match="network"):
            load_any(write(changed), options=UNSEEN)
    with pytest.raises(InputError, match=r"does not fit .* x{100}$"):
        load_any(write({**arrays_of(NEW), "x" * 1000: np.zeros(3, np.float32)}), options=UNSEEN)


def test_options_are_for_files_of_others(tmp_path):
    with pytest.raises(InputError, match=r"trained_as, image_size: for \.pt and \.pkl files of others"):
        load_any(tmp_path, trained_as="isic-published", options={"image_size": 64})


@pytest.mark.parity
@pytest.mark.parametrize("file", sorted(FOLDER.glob("forward-*.npz")), ids=lambda file: file.stem)
def test_a_file_of_each_published_network_has_the_weights_and_options_of_its_parity_case(write, file):
    case = cases.load(file)
    wanted = {name: shape for name, shape in shapes(case.network).items() if "bottleneck_proj" not in name}
    saved = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in wanted.items()}
    unseen = ("num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order", "ssformer_heads")
    options = {name: getattr(case.network, name) for name in (*unseen, "attention_norm", "image_size")}
    found = load_any(write(saved), options={**options, "diffusion_steps": 1000}).weights
    for name, array in saved.items():
        assert found.arrays[name].tobytes() == array.tobytes(), name
    network = dataclasses.replace(found.config.network, channel_mult=case.network.channel_mult)
    attended = dataclasses.replace(network, attention_resolutions=case.network.attention_resolutions)
    assert attended.level_widths == network.level_widths == found.config.network.level_widths
    assert shapes(attended) == shapes(found.config.network) == shapes(case.network)
    assert dataclasses.replace(attended, num_label_classes=case.network.num_label_classes) == case.network
