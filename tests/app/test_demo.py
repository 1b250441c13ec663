from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal

import pytest
from PIL import Image

from medsegdiff.app import demo as command
from medsegdiff.app.demo import Plan, demo
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.folder import list_checkpoints

TINY = Plan(
    train_images=4,
    test_images=2,
    picture_size=64,
    image_size=64,
    steps=3,
    batch_size=2,
    members=2,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a demo that Ctrl-C stopped in training and that was continued, and what both said."""
    from medsegdiff.training.trainer import Trainer  # imports Jittor

    out, step, said = tmp_path_factory.mktemp("demo"), Trainer.train_step, io.StringIO()

    def interrupted(trainer, batch):
        result = step(trainer, batch)
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "train_step", interrupted)
            assert demo(out, TINY) == 130
        assert [path.name for path in list_checkpoints(out / "run")] == ["step-000002"]
        assert demo(out, TINY) == 0
    return out, said.getvalue()


@pytest.fixture
def done(made):
    """The folder of a complete demo; tests leave it complete."""
    return made[0]


def test_an_interrupted_demo_is_continued(made):
    assert "the same command continues" in made[1]
    assert "continuing from" in made[1]


def test_everything_is_there(done):
    assert [path.name for path in list_checkpoints(done / "run")] == ["step-000003"]
    assert (done / "run" / "log.csv").read_text().count("\n") == 4  # the header, and a row each step
    names = {path.name for path in (done / "predictions").iterdir()}
    for id in ("ISIC_9500000", "ISIC_9500001"):
        assert {f"{id}{part}.png" for part in ("", "_prob", "_std", "_overlay", "_member0", "_member1")} <= names
    assert {"metrics.csv", "metrics.json", "run.json"} <= names
    assert names == {path.name for path in (done / "first").iterdir()}  # by the package's network
    with Image.open(done / "overview.png") as picture:
        assert picture.width > 1000
    page = (done / "report.html").read_text()
    assert "Training loss" in page and "Best: ISIC_95" in page and 'class="mask"' in page
    with Image.open(done / "run" / "progress.png") as picture:
        assert picture.width > 500


def test_a_complete_demo_is_drawn_again_and_nothing_in_it_is_lost(done, capsys):
    (done / "run" / "notes").write_text("mine")
    (done / "run" / "other").mkdir()
    weights = {path: path.read_bytes() for path in (done / "run").rglob("*.safetensors")}
    assert demo(done, TINY) == 0
    assert (done / "run" / "notes").read_text() == "mine"
    assert (done / "run" / "other").is_dir()
    assert {path: path.read_bytes() for path in (done / "run").rglob("*.safetensors")} == weights
    assert (done / "overview.png").exists()
    said = capsys.readouterr().out
    assert [line[:3] for line in said.splitlines() if line[1:3] == "/6"] == [f"{i}/6" for i in range(1, 7)]
    assert "generated" in said  # the scores are not taken for those of real images
    assert f"keeping the trained network {done / 'run' / 'step-000003'}" in said
    last = said.splitlines()[-6:]
    assert [line.split()[0] for line in last] == [
        str(done / name) for name in ("report.html", "overview.png", "predictions", "first", "run", "data")
    ]


def test_a_foreign_run_is_not_removed(done, tmp_path):
    out = shutil.copytree(done, tmp_path / "demo")
    with pytest.raises(InputError, match=r"run: holds another run, trained with image_size 64, not 96"):
        demo(out, Plan(**{**vars(TINY), "image_size": 96}))
    assert list_checkpoints(out / "run")


def test_a_run_of_other_steps_is_not_removed(done):
    with pytest.raises(InputError, match=r"run: holds another run, trained with steps 3, not 2"):
        demo(done, Plan(**{**vars(TINY), "steps": 2}))
    assert list_checkpoints(done / "run")


@pytest.mark.parametrize("name", ["overview.png", "report.html", "predictions/metrics.csv"])
def test_a_file_of_the_user_s_is_not_overwritten(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: not written by"):
        demo(tmp_path, TINY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_other_data_are_not_replaced(done, tmp_path):
    with pytest.raises(InputError, match="run: holds another run, trained with seed 0, not 1"):
        demo(done, TINY, seed=1)
    assert list_checkpoints(done / "run")
    shutil.copytree(done / "data", tmp_path / "data")
    with pytest.raises(InputError, match="data: holds other data"):
        demo(tmp_path, TINY, seed=1)


def test_the_options_reach_the_plan(monkeypatch):
    from medsegdiff.app.cli import main

    calls = []
    monkeypatch.setattr(command, "demo", lambda *arguments: calls.append(arguments) or 0)
    assert main(["demo", "--out_dir", "here", "--steps", "7", "--seed", "3", "--precision", "fp32"]) == 0
    [(out, *others)] = calls
    assert (str(out), *others) == ("here", Plan(steps=7), 3, "fp32")


def test_steps_are_checked(tmp_path):
    with pytest.raises(InputError, match="steps 0"):
        demo(tmp_path / "demo", Plan(steps=0))
    assert not (tmp_path / "demo").exists()
