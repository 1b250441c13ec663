import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base.ownership import MANIFEST
from medsegdiff.io.predictions import Maps, write_prediction


@pytest.fixture
def folders(tmp_path):
    """Two images of three classes, with members that agree and the table that says so."""
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:20] = 1
    labels[8:12, 8:12] = 2
    classes = np.stack([labels == 1, labels == 2]).astype(np.float32)
    for name in ("pred", "truth"):
        (tmp_path / name).mkdir()
    for id in ("a", "b"):
        Image.fromarray(labels).save(tmp_path / "truth" / f"{id}.png")
        write_prediction(tmp_path / "pred", id, Maps(classes, members=[classes, classes], cal=classes))
    (tmp_path / "pred" / "images.csv").write_text("id,members,empty,agreement\na,2,0,1\nb,2,0,0.5\n")
    return ["--pred-path", str(tmp_path / "pred"), "--gt-path", str(tmp_path / "truth")]


def test_several_classes_from_the_command_line(folders, tmp_path, capsys):
    assert main(["evaluate", *folders, "--num-classes", "3", "--out-dir", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 images have a prediction" in shown
    assert "Each foreground class" in shown
    written = {path.name for path in (tmp_path / "out").iterdir() if path.name != MANIFEST}
    assert written == {"metrics.csv", "metrics.json", "retention.png"}
    assert all(str(tmp_path / "out" / name) in shown for name in written)


def test_rules_from_the_command_line(folders, tmp_path, capsys):
    words = [
        *folders,
        "--num-classes",
        "3",
        "--out-dir",
        str(tmp_path / "out"),
        "--tolerance",
        "2.5",
        "--empty",
        "skip",
    ]
    assert main(["evaluate", *words]) == 0
    assert "NSD at 2.5 pixels" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (content["empty"], content["tolerance"]) == ("skip", 2.5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--num-classes", "3", "--tolerance", "-1"], "--tolerance -1.0: must not be negative"),
        (["--num-classes", "3", "--empty", "two"], "two"),
        (["--num-classes", "1"], "--num-classes 1: must be at least 2"),
        (["--num-classes", "257"], "--num-classes 257: must be at most 256"),
        (["--labels", "1,2", "--num-classes", "4"], "--num-classes 4: the labels name 3, background included"),
        (["--num-classes", "3", "--data-name", "folder"], "--data-name folder: has an effect with --data-dir only"),
        ([], "or give --num-classes"),
    ],
)
def test_wrong_classes_are_one_line(folders, options, complaint, capsys):
    assert main(["evaluate", *folders, *options]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [([], "ours", 256), (["--protocol", "jittor"], "jittor", 64), (["--protocol-size", "32"], "ours", 32)],
)
def test_the_protocol_is_chosen_and_written(folders, tmp_path, options, name, size):
    assert main(["evaluate", *folders, "--num-classes", "3", "--out-dir", str(tmp_path), *options]) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["protocol"], content["protocol_size"]) == (name, size)
    assert f"{size} x {size}" in content["conventions"]["published protocol"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--protocol", "theirs"], "--protocol theirs: must be one of ours, original, jittor"),
        (["--protocol-size", "0"], "--protocol-size 0: must be at least 1"),
        (["--protocol-size", "20000"], "--protocol-size 20000: must be at most 4096"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
    ],
)
def test_a_wrong_protocol_is_one_line(folders, options, complaint, capsys):
    assert main(["evaluate", *folders, *options]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.json", "retention.png"])
def test_what_evaluate_did_not_write_stays(folders, tmp_path, capsys, name):
    """Such as the prediction of an image that is called "retention"."""
    mine = tmp_path / "pred" / name
    mine.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["evaluate", *folders, "--num-classes", "3"]) == 2
    said = capsys.readouterr()
    assert f"{mine}: not written by evaluate, or changed since, and would be lost; move it elsewhere" in said.err
    assert said.out == ""  # refused before any work
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_earlier_evaluation_is_replaced(folders, tmp_path):
    words = ["evaluate", *folders, "--num-classes", "3"]
    assert main(words) == 0
    (tmp_path / "pred" / "images.csv").unlink()  # no agreement, no retention
    assert main([*words, "--seed", "1"]) == 0
    assert not (tmp_path / "pred" / "retention.png").exists()


def test_an_empty_out_dir_is_not_the_working_directory(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *folders, "--num-classes", "3", "--out-dir", ""]) == 2
    assert '--out-dir "": is empty' in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"pred", "truth"}


@pytest.mark.parametrize(
    ("output", "environment", "code", "said"),
    [
        (">&-", {}, 0, ""),
        ("| true", {}, 141, ""),
        ("> /dev/full", {}, 2, ": cannot be written: no space left on the disk"),
        ("> shown", {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, 0, ""),
        ("> shown 2>&-", {}, 0, ""),
        (">&- 2>&- <&-", {}, 0, ""),
    ],
)
def test_the_files_are_written_whatever_becomes_of_the_output(folders, tmp_path, output, environment, code, said):
    words = ["evaluate", *folders, "--num-classes", "3"]
    (tmp_path / "pred" / "a.png").rename(tmp_path / "pred" / "\u00e4.png")
    (tmp_path / "truth" / "a.png").rename(tmp_path / "truth" / "\u00e4.png")
    (tmp_path / "truth" / "\u1e9e.png").write_bytes((tmp_path / "truth" / "b.png").read_bytes())  # without prediction
    command = f"{shlex.join([sys.executable, '-m', 'medsegdiff', *words])} {output}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    # Where it is slow, it says how far it is.
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("evaluating: ")]
    assert len(lines) == bool(said)
    assert all("standard output" in line and said in line for line in lines)
    assert len((tmp_path / "pred" / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert json.loads((tmp_path / "pred" / "metrics.json").read_text(encoding="utf-8"))["missing"] == ["\u1e9e"]


@pytest.mark.parametrize("count", [10**400, 0, "two", float("inf")])
def test_a_number_of_classes_that_no_run_has_is_not_believed(folders, tmp_path, count):
    mask = Image.open(tmp_path / "truth/a.png").point(lambda value: 255 * (value > 0))
    for name in ("pred", "truth"):
        mask.save(tmp_path / name / "a.png")
        (tmp_path / name / "b.png").unlink()
    run = {"kept": [], "labels": "", "num_classes": count}
    (tmp_path / "pred/run.json").write_text(json.dumps(run))
    for companion in (tmp_path / "pred").glob("*_*"):
        companion.unlink()
    (tmp_path / "pred/images.csv").unlink()
    assert main(["evaluate", *folders, "--out-dir", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out/metrics.json").read_text())["num_classes"] == 2
