from __future__ import annotations

import json

import pytest
import yaml

from medsegdiff.app.cli import main
from medsegdiff.data.phantom import write_isic

NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images whose masks hold three classes."""
    out = tmp_path_factory.mktemp("data") / "images"
    write_isic(out, train=4, test=1, size=64, num_classes=3)
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))


def train(images, out, *options):
    words = ["--data-dir", str(images), "--out-dir", str(out), "--tensorboard", "False", "--batch-size", "2"]
    return main(["train", *words, *NETWORK, *options])


@pytest.mark.e2e
def test_three_classes_are_trained_continued_and_not_mixed_with_two(images, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(images, out, "--num-classes", "3", "--steps", "1", "--augment") == 0
    assert train(images, out, "--num-classes", "3", "--steps", "2", "--augment") == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["num_classes"] == 3
    config = json.loads((out / "step-000002" / "state.json").read_text())["config"]
    assert config["num_classes"] == 3
    assert "mask_channels" not in config
    capsys.readouterr()
    assert train(images, out, "--steps", "3") == 2
    assert "holds several classes; give --num-classes" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "wanted"), [("1", "at least 2"), ("257", "at most 256")])
def test_a_senseless_number_of_classes_is_named(images, tmp_path, capsys, count, wanted):
    assert train(images, tmp_path / "run", "--num-classes", count) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --num-classes {count}: must be {wanted}")
    assert said.count("\n") == 1


def test_masks_that_hold_no_class_indices_are_named(tmp_path, capsys):
    write_isic(tmp_path / "images", train=1, test=1, size=64)
    assert train(tmp_path / "images", tmp_path / "run", "--num-classes", "3") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "ISIC_9000000_Segmentation.png: holds class 255" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["config.yaml", "log.csv"])
def test_what_training_did_not_write_stays(images, tmp_path, capsys, name):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("mine")
    assert train(images, out, "--num-classes", "3") == 2
    assert f"{out / name}: not written by train" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"
    assert not (tmp_path / "cache").exists()  # refused before any work


def test_an_empty_out_dir_is_not_the_working_directory(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(images, "", "--num-classes", "3") == 2
    assert '--out-dir "": is empty' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_the_cost_and_writes_nothing(images, tmp_path, capsys):
    assert train(images, tmp_path / "run", "--num-classes", "3", "--dry-run", "--val-interval", "5") == 0
    said = capsys.readouterr().out
    for what in ("parameters", "images          3\n", "steps per epoch 1.5", "memory", "GiB", "time per step"):
        assert what in said
    assert list(tmp_path.iterdir()) == []


def test_validation_pictures_and_a_best_checkpoint_come_with_their_options(images, tmp_path, capsys):
    out = tmp_path / "run"
    options = "--num-classes 3 --steps 9 --val-interval 1 --val-steps 2 --val-fraction 0.5 --patience 1".split()
    assert train(images, out, *options, "--lr", "1e-12") == 0  # which changes nothing: the second is no better
    said = capsys.readouterr().out.splitlines()
    assert said[-3].startswith("trained 2 steps")
    best = json.loads((out / "step-000002" / "state.json").read_text())["training"]["validation"]["best"]
    assert said[-2] == f"best validation Dice {best:.4f}, at step 1: {out / 'best'}"
    assert said[-1] == f"next: medsegdiff sample --model-path {out / 'best'} --data-dir {images}"
    assert [path.name for path in (out / "best").iterdir()] == ["step-000001"]
    assert len(list((out / "samples").iterdir())) == 2
    assert len(json.loads((out / "run.json").read_text())["dataset"]["validation"]) == 2


def test_holding_out_everything_is_refused_in_one_line(images, tmp_path, capsys):
    for more in ([], ["--dry-run"]):
        options = "--num-classes 3 --val-interval 1 --val-fraction 0.9".split()
        assert train(images, tmp_path / "run", *options, *more) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: --val-fraction 0.9: of 4 images, or patients, 4 would be held out")
    assert not (tmp_path / "run").exists()
