from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import ablation, ablation_v2, choices
from benchmarks.ablation_figures import draw_curves, draw_masks
from medsegdiff.app.train import read_options

DICE = {"new": (0.5, 0.7), "nbp": (0.6, 0.9)}


@pytest.fixture
def trained(monkeypatch):
    """The trainings that were made."""
    names = []

    def train(study, run, name, seed, options):
        run.mkdir(parents=True)
        names.append((name, seed))
        return name

    def score(study, run, options):
        rows = [f"image-{index},{dice},{dice / (2 - dice)}" for index, dice in enumerate(DICE[run])]
        return "\n".join(["id,dice,iou", *rows]) + "\n"

    monkeypatch.setattr(ablation.Study, "train", train)
    monkeypatch.setattr(ablation.Study, "score", score)
    for drawn in ("draw_curves", "draw_masks"):
        monkeypatch.setattr(ablation, drawn, lambda path, studied: None)
    return names


def test_what_is_scored_is_not_repeated_and_differences_are_paired(trained, tmp_path, capsys):
    given = ["isic", "--data-dir", str(tmp_path), "--out-dir", str(tmp_path), "--only", "new", "nbp", "--seeds"]
    ablation_v2.main([*given, "0"])
    assert trained == [("new", 0), ("nbp", 0)]
    ablation_v2.main([*given, "0", "1"])
    assert trained[2:] == [("new", 1), ("nbp", 1)]
    table = (tmp_path / "table.md").read_text().splitlines()
    assert capsys.readouterr().out.endswith("\n".join([*table, "", ""]))
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table if line}
    assert rows["new"][0] == "2"
    assert rows["new"][1].startswith("60.00 (")
    assert rows["new"][3] == ""
    assert rows["nbp"][1].startswith("75.00 (")
    assert rows["nbp"][3].startswith("+15.00 (")


def test_what_is_trained_is_what_was_asked_for(tmp_path, monkeypatch):
    asked = []

    def train(base, **options):
        asked.append((base, options))
        Path(options["out_dir"]).mkdir(parents=True)

    monkeypatch.setattr(ablation.medsegdiff, "train", train)
    study = ablation.Study("isic", {"mine": {"batch_size": 4, "share": 0.5}}, steps=9, held_out=True)
    monkeypatch.setattr(study.__class__, "score", lambda study, run, options: "id,dice,iou\na,1,1\n")
    monkeypatch.setattr(ablation, "draw_curves", lambda path, studied: None)
    study.main("", tmp_path / "out", ["--data-dir", "d", "--seeds", "3", "--steps", "20"])
    run = str(tmp_path / "out" / "mine-3" / "run")
    options = {"batch_size": 4, "steps": 10, "lr_anneal_steps": 10, "data_dir": "d", "out_dir": run, "seed": 3}
    assert asked == [("isic", options)]


def test_the_held_out_images_are_scored(given):
    model_path, data_dir = Path(given[1]), Path(given[3])
    study = ablation.Study("isic", {"mine": {}}, steps=1, held_out=True)
    parsed = type("Options", (), {"data_dir": data_dir, "images": 9})
    heading, *rows = study.score(model_path, parsed).splitlines()
    assert heading == "id,dice,iou"
    trained_on = {path.stem for path in (data_dir / "Train").rglob("*.jpg")}
    assert len(rows) == 1  # of the four training images
    assert rows[0].split(",")[0] in trained_on


def test_else_the_test_images_are_and_their_masks_stay(given, tmp_path):
    (tmp_path / "run").symlink_to(Path(given[1]).resolve())
    parsed = type("Options", (), {"data_dir": Path(given[3]), "images": 2})
    heading, *rows = ablation.Study("isic", {"mine": {}}, steps=1).score(tmp_path / "run", parsed).splitlines()
    assert heading == "id,dice,iou"
    for row in rows:
        name, dice, iou = row.split(",")
        assert (tmp_path / "masks" / f"{name}.png").exists()
        assert float(iou) == pytest.approx(float(dice) / (2 - float(dice)), abs=1e-5)
    assert len(rows) == 2


def test_losses_and_masks_are_drawn(tmp_path):
    studied = {name: tmp_path / name for name in ("new", "nbp")}
    for shade, folder in enumerate(studied.values()):
        (folder / "run").mkdir(parents=True)
        (folder / "run" / "log.csv").write_text("step,loss_diff\n1,0.5\n2,0.25\n")
        (folder / "masks").mkdir()
        for index in range(9):
            colour = Image.new("RGB", (20, 10), (200 * shade, 0, 0))
            colour.save(folder / "masks" / f"image-{index}_overlay.png")
    draw_curves(tmp_path / "curves.png", studied)
    assert Image.open(tmp_path / "curves.png").size == (840, 480)
    draw_masks(tmp_path / "masks.png", studied)
    sheet = np.asarray(Image.open(tmp_path / "masks.png"))
    half = len(sheet) // 2
    assert (sheet[:half] == (200, 0, 0)).all(2).sum() == 0 < (sheet[half:] == (200, 0, 0)).all(2).sum()


@pytest.mark.parametrize("study", [*ablation_v2.STUDIES.values(), choices.STUDY])
def test_every_configuration_is_one_that_can_be_trained(study):
    for name in study.rows:
        assert read_options(study.base, study.options(name, study.steps)).training.steps > 200
