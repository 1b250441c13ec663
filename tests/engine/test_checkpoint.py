import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from medsegdiff.engine import checkpoint as checkpoints
from medsegdiff.engine.checkpoint import Checkpoint
from medsegdiff.engine.config import RunConfig
from medsegdiff.nn.config import NetworkConfig
from medsegdiff.runtime.errors import InputError

CONFIG = RunConfig(network=NetworkConfig(image_size=64))


@pytest.fixture
def run(tmp_path, spaces):
    for step in (2, 10, 9):
        arrays = {"model": spaces.model, "ema-0.9999": spaces.other, "optimizer": {"mean:a": np.float32([step])}}
        checkpoints.save(tmp_path, Checkpoint(step, CONFIG, arrays, {"log": {"loss": [1.5, 2]}}, "abc"))
    return tmp_path


def test_what_is_read_is_what_was_written(run, spaces):
    found = checkpoints.load(run / "step-000010")
    assert (found.step, found.config, found.dataset) == (10, CONFIG, "abc")
    assert found.training == {"log": {"loss": [1.5, 2]}}
    np.testing.assert_array_equal(found.arrays["model"]["a.weight"], spaces.model["a.weight"])
    assert found.arrays["optimizer"]["mean:a"] == 10


def test_the_newest_is_found_by_number_and_nothing_else_lies_there(run):
    found, complaints = checkpoints.load_newest(run)
    assert found.step == 10
    assert complaints == []
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]


def damage_truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    return file


def damage_flip(folder):
    file = folder / "ema-0.9999.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    return file


def damage_remove(folder):
    file = folder / "optimizer.safetensors"
    file.unlink()
    return file


def damage_keys(folder):
    file = folder / "state.json"
    file.write_text('{"step": 10, "config": {}}')
    return file


def damage_state(folder):
    file = folder / "state.json"
    file.write_text(file.read_text()[:50])
    return file


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_state, damage_keys])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(run, damage):
    file = damage(run / "step-000010")
    found, complaints = checkpoints.load_newest(run)
    assert found.step == 9
    assert len(complaints) == 1
    assert str(file) in complaints[0]


def test_only_the_newest_are_kept(run, spaces):
    checkpoints.save(run, Checkpoint(11, CONFIG, {"model": spaces.model}, {}), keep=2)
    assert [p.name for p in checkpoints.list_checkpoints(run)] == ["step-000010", "step-000011"]


def test_weights_come_from_a_run_a_checkpoint_or_a_file(run, spaces):
    for path, group in [
        (run, "ema-0.9999"),
        (run / "step-000002", "ema-0.9999"),
        (run / "step-000002" / "model.safetensors", "model"),
    ]:
        config, arrays, source = checkpoints.load_weights(path)
        wanted = spaces.model if group == "model" else spaces.other
        assert config == CONFIG
        assert source.endswith(f"{group}.safetensors")
        np.testing.assert_array_equal(arrays["a.weight"], wanted["a.weight"])
    _, arrays, _ = checkpoints.load_weights(run, "model")
    np.testing.assert_array_equal(arrays["a.weight"], spaces.model["a.weight"])


def test_a_single_file_brings_its_configuration_along(tmp_path, spaces):
    path = tmp_path / "weights.safetensors"
    save_file(spaces.model, path, metadata={"config": json.dumps(CONFIG.flat())})
    assert checkpoints.load_weights(path).config == CONFIG


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
            checkpoints.load_weights(path)
        assert str(path) in str(caught.value)


def test_a_failed_write_leaves_the_older_checkpoint_and_no_trace(run, spaces, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(InputError, match="no space left"):
        checkpoints.save(run, Checkpoint(12, CONFIG, {"model": spaces.model}, {}), keep=1)
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]
