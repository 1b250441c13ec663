"""Damage of every kind to the newest checkpoint: it is named, never loaded, and the one before is taken."""

import json
import os
import shutil

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.run import RunConfig

FILES = ("model.safetensors", "ema-0.9999.safetensors", "optimizer.safetensors", "state.json")


def saved(run, step):
    rng = np.random.default_rng(step)
    arrays = {
        group: {name: rng.standard_normal((4, 5)).astype(np.float32) for name in ("a.weight", "b.weight")}
        for group in ("model", "ema-0.9999", "optimizer")
    }
    training = {"log": {"loss": [rng.random(), 2]}, "timesteps": {}}
    return checkpoints.save(run, Checkpoint(step, RunConfig(), arrays, training, "abc"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    for step in (9, 10):
        saved(run, step)
    return run


def edit(change):
    """Change a file's bytes."""

    def damage(file):
        content = bytearray(file.read_bytes())
        file.write_bytes(bytes(change(content)))

    return damage


def flip(where, bit=0):
    def change(content):
        content[int(where * (len(content) - 1))] ^= 1 << bit
        return content

    return edit(change)


def scatter(content):
    for position in np.random.default_rng(len(content)).integers(0, len(content), 5):
        content[position] ^= 0xFF
    return content


def swap(file):
    """Exchange the file with that of the checkpoint before, as a botched copy does."""
    other = file.parent.parent / "step-000009" / file.name
    own = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(own)


def older(file):
    shutil.copy(file.parent.parent / "step-000009" / file.name, file)


def folder_instead(file):
    file.unlink()
    file.mkdir()


def dangling_link(file):
    file.unlink()
    file.symlink_to(file.parent / "elsewhere")


EACH_FILE = {
    "removed": lambda file: file.unlink(),
    "empty": edit(lambda content: b""),
    "cut to one byte": edit(lambda content: content[:1]),
    "cut in half": edit(lambda content: content[: len(content) // 2]),
    "without the last byte": edit(lambda content: content[:-1]),
    "with a byte more": edit(lambda content: content + b"\n"),
    "first bit flipped": flip(0),
    "bit flipped at a tenth": flip(0.1, 3),
    "bit flipped in the middle": flip(0.5, 5),
    "bit flipped near the end": flip(0.97, 1),
    "last bit flipped": flip(1, 7),
    "bytes scattered": edit(scatter),
    "zeros": edit(lambda content: bytes(len(content))),
    "of the checkpoint before": older,
    "a folder": folder_instead,
    "a dangling link": dangling_link,
}


def models_exchanged(folder):
    model, average = folder / FILES[0], folder / FILES[1]
    own = model.read_bytes()
    model.write_bytes(average.read_bytes())
    average.write_bytes(own)


def renamed_from_before(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "step-000009", folder)


def emptied(folder):
    for file in folder.iterdir():
        file.unlink()


def file_instead(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def rewritten(change):
    """Edit what the state says and write it as tidily as before, but for its own checksum."""

    def damage(folder):
        file = folder / "state.json"
        state = json.loads(file.read_text())
        change(state)
        file.write_text(json.dumps(state, indent=1))

    return damage


def other_checksums(state):
    state["checksums"] = dict.fromkeys(state["checksums"], "0" * 32)


EACH_FOLDER = {
    "model and average exchanged": models_exchanged,
    "a renamed copy of the one before": renamed_from_before,
    "emptied": emptied,
    "a file": file_instead,
    "another learning rate": rewritten(lambda state: state["config"].update(lr=1.0)),
    "another step": rewritten(lambda state: state.update(step=11)),
    "another log": rewritten(lambda state: state["training"].update(log={})),
    "no checksums": rewritten(lambda state: state.update(checksums={})),
    "other checksums": rewritten(other_checksums),
    "without the word format": rewritten(lambda state: state.pop("format")),
    "without its own checksum": rewritten(lambda state: state.pop("checksum")),
    "no configuration": rewritten(lambda state: state.pop("config")),
    "a list for a state": lambda folder: (folder / "state.json").write_text("[]"),
    "nested too deeply": lambda folder: (folder / "state.json").write_text("[" * 100_000),
}

KINDS = {
    **{f"{file}: {kind}": (file, damage) for file in FILES for kind, damage in EACH_FILE.items()},
    **{kind: ("", damage) for kind, damage in EACH_FOLDER.items()},
}


def test_there_are_many_kinds():
    assert len(KINDS) >= 50


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_and_not_loaded(kind, original, tmp_path):
    run = shutil.copytree(original, tmp_path / "run")
    folder = run / "step-000010"
    file, damage = KINDS[kind]
    damage(folder / file)
    with pytest.raises(InputError) as refused:
        checkpoints.load(folder)
    assert str(refused.value).startswith(str(folder))
    assert file in str(refused.value)
    found, complaints = checkpoints.load_newest(run)
    assert found.step == 9
    assert len(complaints) == 1
    assert str(folder) in complaints[0]
    assert "\n" not in complaints[0]


@pytest.mark.parametrize("file", FILES)
def test_files_swapped_between_two_checkpoints_spoil_both(file, original, tmp_path):
    run = shutil.copytree(original, tmp_path / "run")
    swap(run / "step-000010" / file)
    found, complaints = checkpoints.load_newest(run)
    assert found is None
    assert [f"step-{step:06d}" in text for step, text in zip((10, 9), complaints)] == [True, True]
    assert all(file in text for text in complaints)


@pytest.mark.parametrize("position", range(0, 300, 7))
def test_no_flipped_bit_of_a_state_goes_unseen(position, original, tmp_path):
    run = shutil.copytree(original, tmp_path / "run")
    file = run / "step-000010" / "state.json"
    content = bytearray(file.read_bytes())
    for bit in range(8):
        content[-position - 1] ^= 1 << bit
        file.write_bytes(bytes(content))
        with pytest.raises(InputError, match="damaged"):
            checkpoints.load(file.parent)
        content[-position - 1] ^= 1 << bit


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_checkpoint_is_named_and_does_not_hang(original, tmp_path, name):
    path = tmp_path / "step-000010"
    shutil.copytree(original / "step-000010", path)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(InputError, match=rf"{name}: "):
        checkpoints.load(path)


def test_a_pipe_in_place_of_a_file_of_weights_is_named_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights.safetensors: a pipe, where a file was expected"):
        load_weights(tmp_path / "weights.safetensors")
