import errno
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.checkpoints.weights import load_weights
from tests.checkpoints.conftest import CONFIG, spoilt


def test_what_is_read_is_what_was_written(run, spaces):
    found = checkpoints.load(run / "step-000010")
    assert (found.step, found.config, found.dataset) == (10, CONFIG, "abc")
    assert found.training == {"log": {"loss": [1.5, 2]}}
    np.testing.assert_array_equal(found.arrays["model"]["a.weight"], spaces.model["a.weight"])
    assert found.arrays["optimizer"]["mean:a"] == 10


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_who_may_read_it_is_as_the_user_s_umask_says(tmp_path, spaces, mask):
    usual = os.umask(mask)
    try:
        path = checkpoints.save(tmp_path, Checkpoint(1, CONFIG, {"model": spaces.model}, {}))
    finally:
        os.umask(usual)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o666 & ~mask}


def test_the_newest_is_found_by_number_and_nothing_else_lies_there(run):
    found, complaints = checkpoints.load_newest(run)
    assert found.step == 10
    assert complaints == []
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]


def test_a_file_system_without_owners_is_no_obstacle(tmp_path, spaces, monkeypatch):
    def refuse(_path, _mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    checkpoints.load(checkpoints.save(tmp_path, Checkpoint(1, CONFIG, {"model": spaces.model}, {})))


@pytest.mark.parametrize("name", ["step-000010", "step-000010/model.safetensors"])
def test_what_may_not_be_read_is_no_damage(run, monkeypatch, name):
    allowed = os.access  # the user may be root
    monkeypatch.setattr(os, "access", lambda path, mode: path != run / name and allowed(path, mode))
    with pytest.raises(InputError, match=f"{name}: permission denied; make it readable, or move step-000010"):
        checkpoints.load_newest(run)


def test_only_the_newest_are_kept(run, spaces):
    checkpoints.save(run, Checkpoint(11, CONFIG, {"model": spaces.model}, {}), keep=2)
    assert [p.name for p in checkpoints.list_checkpoints(run)] == ["step-000010", "step-000011"]
    assert sorted(p.name for p in run.iterdir()) == ["step-000010", "step-000011"]


def test_later_ones_from_before_a_step_back_neither_count_nor_push_out_the_new_one(run, spaces):
    checkpoints.save(run, Checkpoint(3, CONFIG, {"model": spaces.model}, {}), keep=1)
    assert [p.name for p in checkpoints.list_checkpoints(run)] == ["step-000003", "step-000009", "step-000010"]


def test_what_a_killed_process_left_is_cleared_away_and_what_is_whole_comes_back(run):
    (run / ".step-000011.abc.tmp").mkdir()
    (run / ".step-000011.abc.tmp" / "model.safetensors").write_bytes(b"half")
    (run / "step-000002").rename(run / ".step-000002.def.old")
    (run / "step-000010").rename(run / ".step-000010.123.tmp")  # between the two renames of a replacement
    (run / ".step-notes").touch()
    checkpoints.tidy(run)
    assert sorted(p.name for p in run.iterdir()) == [".step-notes", "step-000009", "step-000010"]
    assert checkpoints.load_newest(run)[0].step == 10


def test_a_leftover_does_not_replace_what_bears_its_name(run):
    shutil.copytree(run / "step-000009", run / ".step-000010.123.tmp")
    shutil.copytree(run / "step-000009", run / ".step-000008.123.tmp")
    checkpoints.tidy(run)
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]


def test_a_checkpoint_from_before_states_were_sealed_is_read(run, spaces):
    file = run / "step-000010" / "state.json"
    state = json.loads(file.read_text())
    del state["format"], state["checksum"]
    for later in ("clip_grad", "val_interval", "lr_schedule", "use_checkpoint"):
        del state["config"][later]
    file.write_text(json.dumps(state, indent=1))
    assert checkpoints.load(run / "step-000010").config == CONFIG
    np.testing.assert_array_equal(load_weights(run).arrays["a.bias"], spaces.other["a.bias"])


def test_what_a_newer_version_wrote_is_not_called_damaged(run):
    file = run / "step-000010" / "state.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(InputError, match=r"state\.json: written by a newer medsegdiff; update this one"):
        checkpoints.load(run / "step-000010")


@pytest.mark.parametrize("group", ["model", "ema-0.9999", "optimizer"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_saved_nor_a_reason_to_remove_what_is(run, spaces, group, value):
    arrays = {"model": spaces.model, "ema-0.9999": spaces.other, "optimizer": {}}
    arrays[group] = spoilt(spaces.model, value)
    with pytest.raises(InputError, match=rf"step-000012/{group}.safetensors: not saved: a.bias is not finite; lower"):
        checkpoints.save(run, Checkpoint(12, CONFIG, arrays, {}), keep=1)
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]


def test_a_checkpoint_that_is_not_finite_counts_as_damaged(from_before, spaces):
    found, complaints = checkpoints.load_newest(from_before)
    assert found.step == 10
    (complaint,) = complaints
    assert complaint.endswith(
        "step-000012/model.safetensors: cannot be used: a.bias is not finite; use another checkpoint"
    )
    np.testing.assert_array_equal(load_weights(from_before).arrays["a.bias"], spaces.other["a.bias"])


def test_a_failed_write_leaves_the_older_checkpoint_and_no_trace(run, spaces, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(InputError, match="no space left"):
        checkpoints.save(run, Checkpoint(12, CONFIG, {"model": spaces.model}, {}), keep=1)
    assert sorted(p.name for p in run.iterdir()) == ["step-000002", "step-000009", "step-000010"]


def test_what_is_no_part_of_a_checkpoint_is_neither_replaced_nor_removed(run, spaces, tmp_path_factory):
    notes, elsewhere = run / "step-000002" / "notes.txt", tmp_path_factory.mktemp("elsewhere")
    notes.write_text("mine")
    (run / "step-000001").symlink_to(elsewhere)
    checkpoints.save(run, Checkpoint(11, CONFIG, {"model": spaces.model}, {}), keep=1)
    assert sorted(p.name for p in run.iterdir()) == ["step-000001", "step-000002", "step-000011"]
    for step, foreign in ((1, run / "step-000001"), (2, notes)):
        with pytest.raises(InputError, match=f"{foreign}: is not part of a checkpoint, and would be lost"):
            checkpoints.save(run, Checkpoint(step, CONFIG, {"model": spaces.model}, {}))
    assert notes.read_text() == "mine"
    assert (run / "step-000001").is_symlink()
