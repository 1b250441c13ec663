from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.config.run import RunConfig
from medsegdiff.training.run_folder import own


def save(out, step, keep=0):
    arrays = {"model": {"w": np.ones(3, np.float32)}}
    return checkpoints.save(out, checkpoints.Checkpoint(step, RunConfig(), arrays, training={}), keep)


@pytest.mark.parametrize(
    "name", ["config.yaml", "run.json", "log.csv", "events.jsonl", "progress.png", "samples/step-000002.png"]
)
def test_what_training_did_not_write_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: not written by train"):
        own(tmp_path)


def test_a_checkpoint_is_no_folder_to_train_in(tmp_path):
    with pytest.raises(InputError, match=f"is a checkpoint; to continue, give the training's folder, {tmp_path}, as"):
        own(save(tmp_path, 2))


def test_the_folder_of_another_training_s_best_checkpoint_is_refused(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "best").mkdir()
    with pytest.raises(InputError, match="belongs to the training above it"):
        own(tmp_path / "best")
    own(tmp_path / "else" / "best")


def test_the_run_json_of_sampling_is_not_training_s(tmp_path):
    with Ledger(tmp_path, "sample").together("run.json") as stage:
        (stage / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json: not written by train"):
        own(tmp_path)


@pytest.mark.parametrize("name", ["tensorboard", "samples", "best"])
def test_links_are_not_followed(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path)
    with pytest.raises(InputError, match=f"{name}: not written by train"):
        own(tmp_path / "out")


@pytest.mark.parametrize("name", ["tensorboard", "samples", "best"])
def test_a_file_where_a_folder_is_to_be_is_noticed_before_any_work(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: not written by train"):
        own(tmp_path)


def test_a_run_from_before_there_were_ledgers_is_known_by_its_checkpoints(tmp_path):
    save(tmp_path, 3)
    for name in ("config.yaml", "run.json", "log.csv", "events.jsonl"):
        (tmp_path / name).write_text("ours")
    ledger = own(tmp_path)
    assert ledger.owns("config.yaml")
    (tmp_path / "log.csv").write_text("ours, and more")
    own(tmp_path)
    (tmp_path / "config.yaml").write_text("changed by hand")
    with pytest.raises(InputError, match=r"config\.yaml: not written by train, or changed since"):
        own(tmp_path)


@pytest.mark.parametrize("folder", [".", "best"])
@pytest.mark.parametrize("content", ["notes.txt", None])
def test_what_only_has_the_name_of_a_checkpoint_is_refused(tmp_path, folder, content):
    path = tmp_path / folder / "step-000100"
    path.parent.mkdir(exist_ok=True)
    if content:
        path.mkdir()
        path /= content
    path.write_text("mine")
    with pytest.raises(InputError, match=f"{path}: is not part of a checkpoint, and would be lost"):
        own(tmp_path)
