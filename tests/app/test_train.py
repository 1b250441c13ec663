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
    assert "--num-classes 3, not 2" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["1", "257"])
def test_a_senseless_number_of_classes_is_named(images, tmp_path, capsys, count):
    assert train(images, tmp_path / "run", "--num-classes", count) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --num-classes {count}: must be from 2")
    assert said.count("\n") == 1


def test_masks_that_hold_no_class_indices_are_named(tmp_path, capsys):
    write_isic(tmp_path / "images", train=1, test=1, size=64)
    assert train(tmp_path / "images", tmp_path / "run", "--num-classes", "3") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "ISIC_9000000_Segmentation.png: holds class 255" in said
    assert not (tmp_path / "run").exists()
