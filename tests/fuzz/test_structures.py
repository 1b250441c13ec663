"""Files of ours and of others that are well formed, but hold other kinds of values: right, or one line.

MEDSEGDIFF_FUZZ and MEDSEGDIFF_FUZZ_FIRST as in `test_reading`.
"""

import json
import random
import shutil

import pytest
import yaml

from medsegdiff.checkpoints.state import STATE, sealed
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.data.cases import Case
from medsegdiff.data.layouts import description
from medsegdiff.data.splits import read_split
from medsegdiff.data.stock import listing
from tests.fuzz.test_commands import EVALUATE, dice, run
from tests.fuzz.test_reading import attempt, seeds
from tests.web.conftest import predict, train

ODD = (None, True, 0, -1, 10**400, float("inf"), float("nan"), "", "text", [], [1], {}, {"a": 1}, [[]], [{}], "\0", "٣")
REPORTED = [f"predictions/{name}" for name in ("metrics.json", "metrics.csv", "run.json")]
REPORTED += [f"run/{name}" for name in ("run.json", "log.csv", "events.jsonl", "config.yaml")]
NAMES = ("__class__", "", "a", "mean")


def odd(value, rng):
    """`value` with one thing in it replaced by another, left out, or put in."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        place = rng.choice(keys)
        kept = value.copy()
        if rng.random() < 0.1:
            del kept[place]
        else:
            kept[place] = odd(value[place], rng)
        return kept
    if isinstance(value, dict) and rng.random() < 0.5:
        return {**value, rng.choice(NAMES): rng.choice(ODD)}
    return rng.choice(ODD)


def spoil(path, rng):
    """One of the values in a JSON, YAML or CSV file."""
    text = path.read_text()
    if path.suffix == ".json":
        path.write_text(json.dumps(odd(json.loads(text), rng)))
    elif path.suffix == ".jsonl":
        lines = text.splitlines()
        place = rng.randrange(len(lines) - 1)
        lines[place] = json.dumps(odd(json.loads(lines[place]), rng))
        path.write_text("\n".join(lines))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(odd(yaml.safe_load(text), rng)))
    else:
        rows = [line.split(",") for line in text.splitlines()]
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(("", "x", "nan", "inf", "1e999", "-1", "9" * 400, '"', "a,b", "\0"))
        path.write_text("\n".join(map(",".join, rows)) + "\n")


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """A training, and scored predictions by it."""
    folder = tmp_path_factory.mktemp("reported")
    predict(folder / "predictions", train(folder / "run") / "best/step-000030/model.safetensors")
    return folder


@seeds(60)
def test_a_report_of_odd_values(reported, tmp_path, capfd, seed):
    rng, folder = random.Random(seed), tmp_path / "reported"
    shutil.copytree(reported, folder)
    for name in rng.sample(REPORTED, rng.choice((1, 1, 2))):
        spoil(folder / name, rng)
    run(["report", folder / "predictions", folder / "run", "--out", tmp_path / "page.html"], capfd)


@seeds(20)
def test_scores_of_odd_values(home, capfd, seed):
    rng = random.Random(seed)
    (home / "predictions/images.csv").write_text("id,members,empty,agreement\na,5,0,0.5\nb,5,1,\nc,5,0,1\n")
    (home / "predictions/run.json").write_text(json.dumps({"kept": ["a", "b"], "labels": "", "num_classes": 2}))
    spoil(home / f"predictions/{rng.choice(('images.csv', 'run.json'))}", rng)
    if run([*EVALUATE, "--out-dir", "scores"], capfd) == 0:
        assert dice(home / "scores") == [1]


@seeds(40)
def test_a_state_of_odd_values(home, seed):
    rng = random.Random(seed)
    path = home / "run/step-000002" / STATE
    state = json.loads(path.read_text())
    del state["checksum"]
    path.write_text(sealed(json.dumps(odd(state, rng), indent=1)))
    attempt(load_weights, home / "run", rng.choice(("ema", "model")))


@seeds(40)
def test_descriptions_and_splits_of_odd_values(tmp_path, seed):
    rng = random.Random(seed)
    labels = rng.choice(({"0": "background", "1": "organ"}, {"background": 0, "whole": [1, 2], "core": 2}))
    cases = [Case(name, (tmp_path / f"{name}.png",)) for name in "abc"]
    for name, content in (
        (description.FILE, {"channel_names": {"0": "CT", "1": "T2"}, "labels": labels, "file_ending": ".png"}),
        ("split.json", {"train": ["a"], "validation": ["b"], "test": ["c"]}),
        ("datasets/a.json", {"folder": "f", "first": "a", "size": 64, "slices": 3, "entries": ["cases/a", "cases/b"]}),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        spoil(path, rng)
    attempt(description.regions, tmp_path)
    attempt(read_split, tmp_path / "split.json", cases)
    listing(tmp_path)
