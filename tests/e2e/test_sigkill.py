"""SIGKILL at random moments, in steps and inside the writing of checkpoints: no trace of it is left in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.checkpoints import folder as checkpoints
from tests.e2e.killing import KEEP, KILLS, STEPS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killing")
    # Several threads, whatever the tests around it are given: that is where bits could differ.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "tests.e2e.killing", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_training_was_killed_and_the_last_one_finished(folder):
    report = json.loads((folder / "kills.json").read_text())
    assert [kill["ended"] for kill in report["kills"]] == [-9] * KILLS
    assert report["finished"] == 0


def test_no_checkpoint_was_lost(folder):
    for kill in json.loads((folder / "kills.json").read_text())["kills"]:
        # One more than was reported may be there: the report, too, can be what a kill prevented.
        expected = sorted({*kill["saved"], *kill["found"]})[-KEEP:]
        assert set(expected) <= set(kill["found"]), kill


def test_weights_moments_averages_and_sampler_end_with_the_same_bits(folder):
    ours, theirs = (checkpoints.load(folder / name / f"step-{STEPS:06d}") for name in ("killed", "whole"))
    assert theirs.arrays.keys() == {"model", "optimizer", "ema-0.9", "ema-0.99"}
    for group, arrays in theirs.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours.arrays[group][name], array, err_msg=f"{group}: {name}")
    assert ours.training == theirs.training


def test_the_log_neither_repeats_nor_misses_a_row(folder):
    assert (folder / "killed" / "log.csv").read_bytes() == (folder / "whole" / "log.csv").read_bytes()


def test_nothing_else_differs_and_nothing_is_left_over(folder):
    def listing(name):
        out = folder / name
        return sorted(str(path.relative_to(out)) for path in out.rglob("*"))

    assert listing("killed") == listing("whole")
    assert len(checkpoints.list_checkpoints(folder / "killed")) == KEEP
    for picture in (folder / "whole" / "samples").iterdir():
        assert (folder / "killed" / "samples" / picture.name).read_bytes() == picture.read_bytes()
    best = [checkpoints.load(next((folder / name / "best").iterdir())) for name in ("killed", "whole")]
    assert best[0].training["validation"] == best[1].training["validation"]


def test_every_event_line_is_whole_and_every_start_is_there(folder):
    lines = (folder / "killed" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("start") + events.count("resume") == KILLS + 1
