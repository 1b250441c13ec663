"""Several classes from training to scores, by the commands that a user runs."""

import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main

pytestmark = pytest.mark.e2e

NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()


def test_three_classes_are_trained_sampled_and_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main("data phantom --out-dir isic --train 6 --test 2 --size 80 --num-classes 3".split()) == 0
    training = "train --data-dir isic --out-dir run --num-classes 3 --steps 3 --batch-size 2"
    assert main([*training.split(), *NETWORK]) == 0
    sampling = "sample --model-path run --data-dir isic --out-dir masks --members 2 --steps 2 --save-members --maps"
    assert main([*sampling.split(), "--trace", "ISIC_9500001"]) == 0
    masks = tmp_path / "masks"
    names = {path.name.replace("ISIC_9500001", "") for path in masks.glob("ISIC_9500001*")}
    per_class = {f"_{kind}{k}.png" for kind in ("prob", "std", "cal", "member0_class", "member1_class") for k in (1, 2)}
    assert names == {".png", "_entropy.png", "_overlay.png", "_trace.png", "_trace.gif", *per_class}
    with Image.open(masks / "ISIC_9500001.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (80, 80)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
    capsys.readouterr()
    assert main("evaluate --pred-path masks --data-dir isic --num-classes 3".split()) == 0
    assert "Each foreground class" in capsys.readouterr().out
    assert json.loads((masks / "metrics.json").read_text())["images"]["evaluated"] == 2
