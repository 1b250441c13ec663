"""Whole commands in processes of their own, as a user runs them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.data.phantom import write_isic

ROOT = Path(__file__).resolve().parents[2]
NETWORK = (
    "--image_size 32 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1 --num_heads 1 --attention_resolutions 16 "
    "--use_scale_shift_norm False --learn_sigma True --diffusion_steps 30"
).split()

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2e")
    write_isic(folder / "isic", train=6, test=3, size=80)
    return folder


def run(home, *words, expect=0):
    environment = {**os.environ, "MEDSEGDIFF_CACHE": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=home, check=False
    )
    assert done.returncode == expect, done.stderr
    return done


def script(name):
    return ROOT / "scripts" / f"segmentation_{name}.py"


def test_the_three_scripts_train_sample_and_score(home):
    common = ["--data_dir", "isic", *NETWORK]
    run(
        home,
        script("train"),
        *common,
        "--out_dir",
        "run",
        "--lr_anneal_steps",
        4,
        "--save_interval",
        2,
        "--batch_size",
        2,
    )
    assert sorted(p.name for p in (home / "run").glob("step-*")) == ["step-000002", "step-000004"]
    run(home, script("sample"), *common, "--out_dir", "masks", "--model_path", "run", "--num_ensemble", 2)
    for index in range(3):
        name = f"ISIC_{9500000 + index}"
        mask, probability = (np.array(Image.open(home / "masks" / f"{name}{end}.png")) for end in ("", "_prob"))
        assert mask.shape == probability.shape == (80, 80)
        assert set(np.unique(mask)) <= {0, 255}
        certain = np.abs(probability - 32767.5) > 1  # the mask is cut before the probability is rounded
        np.testing.assert_array_equal(mask[certain] == 255, probability[certain] > 32767.5)
        assert certain.mean() > 0.9
    recorded = json.loads((home / "masks" / "run.json").read_text())
    assert recorded["sampling"]["members"] == 2
    assert recorded["network_evaluations_per_mask"] == 30
    truth = home / "isic" / "Test" / "ISBI2016_ISIC_Part1_Test_GroundTruth"
    done = run(home, script("env"), "--pred_path", "masks", "--gt_path", truth)
    assert "Dice at 0.5" in done.stdout
    with (home / "masks" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_own_pictures_are_segmented_at_their_own_size(home):
    folder = home / "mine"
    folder.mkdir()
    sizes = {"a.b": (50, 41), "c_d": (33, 90)}
    for name, (width, height) in sizes.items():
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    options = "--model-path run --images mine --out-dir own --members 2 --steps 2 --maps --save-members".split()
    run(home, "-m", "medsegdiff", "sample", *options)
    for name, size in sizes.items():
        for end in ("", "_prob", "_std", "_member0", "_member1"):
            assert Image.open(home / "own" / f"{name}{end}.png").size == size
        assert (home / "own" / f"{name}_overlay.png").is_file()


def rows(log):
    with log.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_ctrl_c_saves_and_the_same_command_continues(home, tmp_path):
    out = tmp_path / "run"
    words = ["-m", "medsegdiff", "train", "--data-dir", str(home / "isic"), "--out-dir", str(out), *NETWORK]
    words += ["--batch-size", "2", "--log-interval", "1", "--steps"]
    environment = {**os.environ, "MEDSEGDIFF_CACHE": str(home / "cache")}
    step, said = 0, ""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(
            [sys.executable, *words, "100000"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not (out / "log.csv").exists() or len(rows(out / "log.csv")) < step + 3:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(process.pid, number)  # the whole group, as a terminal and a scheduler do
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert said in err
        checkpoint = max(out.glob("step-*"))
        step, said = int(checkpoint.name[5:]), f"continuing from {checkpoint}"
    assert said in run(home, *words, step + 2).stderr
    assert rows(out / "log.csv") == list(range(1, step + 3))
