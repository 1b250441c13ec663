import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from tests.checkpoints.conftest import CONFIG, spoilt


def test_of_several_averages_the_first_one_asked_for_is_sampled_with(tmp_path, spaces):
    config = RunConfig(training=TrainingConfig(ema_rate="0.9999, 0.99"))
    arrays = {"model": spaces.model, "ema-0.99": spaces.model, "ema-0.9999": spaces.other}
    checkpoints.save(tmp_path, Checkpoint(1, config, arrays, {}))
    assert load_weights(tmp_path).source.endswith("ema-0.9999.safetensors")


def test_weights_come_from_a_run_a_checkpoint_or_a_file(run, spaces):
    for path, group in [
        (run, "ema-0.9999"),
        (run / "step-000002", "ema-0.9999"),
        (run / "step-000002" / "model.safetensors", "model"),
    ]:
        config, arrays, source, _ = load_weights(path)
        wanted = spaces.model if group == "model" else spaces.other
        assert config == CONFIG
        assert source.endswith(f"{group}.safetensors")
        np.testing.assert_array_equal(arrays["a.weight"], wanted["a.weight"])
    _, arrays, *_ = load_weights(run, "model")
    np.testing.assert_array_equal(arrays["a.weight"], spaces.model["a.weight"])


def test_a_single_file_brings_its_configuration_along(tmp_path, spaces):
    path = tmp_path / "weights.safetensors"
    save_file(spaces.model, path, metadata={"config": json.dumps(CONFIG.flat())})
    assert load_weights(path).config == CONFIG


def test_what_is_no_checkpoint_is_named(tmp_path, spaces):
    bare = tmp_path / "bare.safetensors"
    save_file(spaces.model, bare)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    pickle = tmp_path / "model.pt"
    pickle.write_bytes(b"\x80\x02")
    for path, word in [
        (tmp_path / "absent", "no such checkpoint"),
        (tmp_path, "holds no checkpoint"),
        (bare, "no configuration"),
        (text, "damaged or not"),
        (pickle, "not a .safetensors file"),
    ]:
        with pytest.raises(InputError, match=word) as caught:
            load_weights(path)
        assert str(path) in str(caught.value)


def test_weights_come_from_the_newest_checkpoint_that_can_be_used(from_before, capsys):
    """As training continues from it."""
    assert "step-000010" in load_weights(from_before, "model").source
    said = capsys.readouterr().err
    assert said.startswith("skipped: ")
    assert said.endswith(
        "step-000012/model.safetensors: cannot be used: a.bias is not finite; use another checkpoint\n"
    )
    (from_before / "step-000010" / "state.json").unlink()
    assert "step-000009" in load_weights(from_before, "model").source
    for name in ("step-000002", "step-000009"):
        (from_before / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"step-000002/model\.safetensors: the file is empty"):
        load_weights(from_before, "model")


def test_a_file_of_weights_that_are_not_finite_is_refused(tmp_path, spaces):
    path = tmp_path / "weights.safetensors"
    save_file(spoilt(spaces.model), path, metadata={"config": json.dumps(CONFIG.flat())})
    with pytest.raises(InputError, match=r"weights\.safetensors: cannot be used: a\.bias is not finite"):
        load_weights(path)


def test_files_of_pytorch_may_hold_shorter_or_longer_numbers(tmp_path):
    values, path = np.float32([1.5, -2, 0.1]), tmp_path / "weights.safetensors"
    halves = (values.view("u4") >> 16).astype("u2")
    stored = {"F64": values.astype("f8"), "F32": values, "F16": values.astype("f2"), "BF16": halves}
    for kind, numbers in {**stored, "I64": values.astype("i8")}.items():
        part = {"dtype": kind, "shape": [3], "data_offsets": [0, numbers.nbytes]}
        header = json.dumps({"__metadata__": {"config": json.dumps(CONFIG.flat())}, "a": part}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes())
        if kind in stored:
            found = load_weights(path).arrays["a"]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, values, rtol={"BF16": 2**-7, "F16": 2**-10}.get(kind, 0))
        else:
            with pytest.raises(InputError, match=r"weights\.safetensors: a holds numbers of the kind I64; save it as"):
                load_weights(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("[1]", "its configuration is not a list of options"),
        ("null", "its configuration is not a list of options"),
        ("[" * 100_000, "damaged or not a .safetensors file"),
        ('{"num_res_blocks": 100000000}', "not understood: num_res_blocks 100000000: must be at most 32"),
        ('{"diffusion_steps": 1000000000}', "not understood: diffusion_steps 1000000000: must be at most 100000"),
        ('{"image_size": "large"}', "not understood: image_size large: must be a whole number"),
    ],
)
def test_a_configuration_of_wrong_types_or_beyond_all_bounds_is_one_line(tmp_path, spaces, options, said):
    path = tmp_path / "weights.safetensors"
    save_file(spaces.model, path, metadata={"config": options})
    with pytest.raises(InputError, match=f"weights.safetensors: .*{said}"):
        load_weights(path)


@pytest.mark.parametrize("data", [[1], {"split": [1]}, {"split": None}])
def test_what_a_state_says_of_data_in_other_words_is_one_line(run, spaces, data):
    checkpoints.save(run, Checkpoint(11, CONFIG, {"model": spaces.model}, {"data": data}))
    with pytest.raises(InputError, match=r"state\.json: damaged; use another"):
        load_weights(run / "step-000011", "model")
