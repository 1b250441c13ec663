import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
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
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"metrics.csv", "metrics.json", "retention.png"}
    assert all(str(tmp_path / "out" / name) in shown for name in written)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--num-classes", "1"], "--num-classes 1: must be from 2"),
        (["--num-classes", "257"], "--num-classes 257: must be from 2"),
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
    ],
)
def test_a_wrong_protocol_is_one_line(folders, options, complaint, capsys):
    assert main(["evaluate", *folders, *options]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
