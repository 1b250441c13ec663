"""The whole visit on a CPU with a tiny network: the stages and files are those of a GPU."""

import json
import subprocess
import sys
import zipfile

import pytest

from benchmarks.gpu import visit as visits
from benchmarks.gpu.plan import STAGES, Stage
from benchmarks.gpu.results import Results
from benchmarks.gpu.visit import ROOT, Visit, run
from medsegdiff.data.phantom import write_isic

pytestmark = pytest.mark.extended


def tiny_wheel(folder):
    folder.mkdir()
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: travelled\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / "travelled-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("travelled.py", "")
        for name, text in about.items():
            wheel.writestr(f"travelled-1.0.dist-info/{name}", text)


def gpu(*words):
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *map(str, words)], cwd=ROOT, check=True)


@pytest.mark.e2e
def test_the_rehearsal(tmp_path):
    work, out, carried = (tmp_path / name for name in ("work", "out", "carried"))
    write_isic(tmp_path / "isic", train=4, test=2, size=48)
    gpu("carry", "--carried", carried, "--without-packages", "--data-dir", tmp_path / "isic", "--size", 32)
    tiny_wheel(carried / "wheels")
    words = ("visit", "--rehearsal", "--carried", carried, "--work", work, "--out", out, "--budget", 3000)
    gpu(*words)
    found = json.loads((out / "results.json").read_text())
    assert {row["name"]: row["state"] for row in found["states"]} == {stage.name: "done" for stage in STAGES}
    assert not [row for rows in found.values() for row in rows if "error" in row]
    rows = {stage: {row["name"]: row for row in rows} for stage, rows in found.items()}
    assert rows["setup"]["packages"]["wheels"] == 1
    assert (work / "site" / "travelled.py").exists()
    assert rows["setup"]["data"]["images"] == 6
    assert len(rows["check"]) == 9
    assert len(rows["parity"]) == 2
    assert any(name.endswith("ours fp32") for name in rows["speed"])
    assert len(rows["precision"]["fp32"]["losses"]) == 5
    assert rows["profile"]["step, fp32"]["launches"] > 100
    assert rows["isic"]["training"]["steps"] == 4
    assert 0 <= rows["isic"]["scores"]["dice"] <= 1
    assert len(list(out.iterdir())) <= 8
    assert {path.name for path in out.iterdir()} == {"results.json", "log.txt", "isic-log.csv", "cache-0"}

    gpu(*words)
    again = json.loads((out / "results.json").read_text())
    assert [again[stage.name] for stage in STAGES[1:]] == [found[stage.name] for stage in STAGES[1:]]

    carry = ("carry", "--carried", tmp_path / "next", "--without-packages", "--back", out)
    gpu(*carry)
    assert {path.name for path in (tmp_path / "next").iterdir()} == {"results.json", "cache-0"}


@pytest.fixture
def stages(monkeypatch):
    """Puts others in their place: each is a program, what it may take, and a name."""

    def put(*given):
        monkeypatch.setattr(visits, "STAGES", tuple(Stage(name, seconds) for name, seconds, _ in given))
        programs = {name: program for name, _, program in given}
        real = subprocess.Popen

        def start(command, **options):
            return real([sys.executable, "-c", programs[command[4]]], **{**options, "cwd": None})

        monkeypatch.setattr(visits.subprocess, "Popen", start)

    return put


def states(work):
    return {row["name"]: row["state"] for row in Results(work / "results").all()["states"]}


def test_what_hangs_is_cut_off_and_the_next_goes_on(stages, tmp_path):
    stages(("hangs", 1, "import time; time.sleep(60)"), ("ends", 5, ""))
    assert run(Visit(tmp_path / "work", tmp_path), tmp_path / "out", 30) == 0
    assert states(tmp_path / "work") == {"hangs": "cut off after 1 s", "ends": "done"}
    assert (tmp_path / "out" / "results.json").exists()


def test_after_a_failed_setup_nothing_is_tried(stages, tmp_path):
    stages(("setup", 5, "raise SystemExit(1)"), ("speed", 5, ""))
    assert run(Visit(tmp_path / "work", tmp_path), tmp_path / "out", 30) == 1
    assert states(tmp_path / "work") == {"setup": "failed with exit code 1"}


def test_without_time_a_stage_is_left_for_the_next_visit(stages, tmp_path):
    stages(("first", 9, "import time; time.sleep(3)"), ("second", 5, ""), ("last", 5, ""))
    run(Visit(tmp_path / "work", tmp_path), tmp_path / "out", 3)
    assert states(tmp_path / "work")["second"] == "no time was left"
    run(Visit(tmp_path / "work", tmp_path), tmp_path / "out", 30)
    assert set(states(tmp_path / "work").values()) == {"done"}


def test_a_visit_starts_where_an_earlier_one_ended(stages, tmp_path):
    stages(("first", 5, "raise SystemExit(3)"), ("second", 5, ""))
    earlier = {"states": [{"name": "first", "state": "done", "seconds": 1.0}]}
    (tmp_path / "results.json").write_text(json.dumps(earlier))
    assert run(Visit(tmp_path / "work", tmp_path), tmp_path / "out", 30) == 0
    assert states(tmp_path / "work") == {"first": "done", "second": "done"}
