"""Several classes from training to scores, as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()


def run(home, *words):
    environment = {**os.environ, "MEDSEGDIFF_CACHE": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "medsegdiff", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_three_classes_are_trained_sampled_and_scored(tmp_path):
    phantom = "data phantom --out-dir isic --train 6 --test 2 --size 80 --num-classes 3"
    run(tmp_path, *phantom.split())
    training = "train --data-dir isic --out-dir run --num-classes 3 --steps 3 --batch-size 2"
    run(tmp_path, *training.split(), *NETWORK)
    sampling = "sample --model-path run --data-dir isic --out-dir masks --members 2 --steps 2 --save-members --maps"
    run(tmp_path, *sampling.split(), "--trace", "ISIC_9500001")
    masks = tmp_path / "masks"
    names = {path.name.replace("ISIC_9500001", "") for path in masks.glob("ISIC_9500001*")}
    per_class = {f"_{kind}{k}.png" for kind in ("prob", "std", "cal", "member0_class", "member1_class") for k in (1, 2)}
    assert names == {".png", "_entropy.png", "_overlay.png", "_trace.png", "_trace.gif", *per_class}
    with Image.open(masks / "ISIC_9500001.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (80, 80)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
    printed = run(tmp_path, *"evaluate --pred-path masks --data-dir isic --num-classes 3".split())
    assert "Each foreground class" in printed
    assert json.loads((masks / "metrics.json").read_text())["images"]["evaluated"] == 2
