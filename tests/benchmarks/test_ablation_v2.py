import pytest

from benchmarks import ablation_v2
from medsegdiff.app.train import read_options

DICE = {"new": (0.5, 0.7), "nbp": (0.6, 0.9)}


@pytest.fixture
def scored(monkeypatch):
    """The trainings that were scored."""
    names = []

    def train(folder, name, seed, options):
        folder.mkdir(parents=True)
        names.append((name, seed))
        return name

    def score(run, options, path):
        rows = [f"image-{index},{dice},{dice / (2 - dice)}" for index, dice in enumerate(DICE[run])]
        ablation_v2.save(path, "\n".join(["id,dice,iou", *rows]) + "\n")

    monkeypatch.setattr(ablation_v2, "train", train)
    monkeypatch.setattr(ablation_v2, "score", score)
    return names


def test_what_is_scored_is_not_repeated_and_differences_are_paired(scored, tmp_path, capsys):
    given = ["--data-dir", str(tmp_path), "--out-dir", str(tmp_path), "--only", "new", "nbp", "--seeds"]
    ablation_v2.main([*given, "0"])
    assert scored == [("new", 0), ("nbp", 0)]
    ablation_v2.main([*given, "0", "1"])
    assert scored[2:] == [("new", 1), ("nbp", 1)]
    table = (tmp_path / "table.md").read_text().splitlines()
    assert capsys.readouterr().out.endswith("\n".join([*table, "", ""]))
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table if line}
    assert rows["new"][0] == "2"
    assert rows["new"][1].startswith("60.00 (")
    assert rows["new"][3] == ""
    assert rows["nbp"][1].startswith("75.00 (")
    assert rows["nbp"][3].startswith("+15.00 (")


def test_every_configuration_is_one_that_can_be_trained():
    for options in ablation_v2.CONFIGURATIONS.values():
        assert read_options("isic-small", options).network.num_channels == 32
