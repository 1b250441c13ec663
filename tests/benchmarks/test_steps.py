import csv

import numpy as np
import pytest

from benchmarks import steps

WAYS = [("ddpm", 2), ("sde-dpm++", 1)]


def rows(folder):
    with (folder / "steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_continued_where_it_was_and_keeps_to_one_model(given, tmp_path, sampled, capsys):
    options = [*given, "--images", "3", "--samplers", "ddpm", "sde-dpm++", "--out-dir", str(tmp_path)]
    steps.main([*options, "--steps", "1", "2"])
    assert [call[:2] for call in sampled] == [("ddpm", 1), ("sde-dpm++", 1), ("ddpm", 2), ("sde-dpm++", 2)]
    assert "| evaluations | ddpm | sde-dpm++ |" in capsys.readouterr().out
    assert (tmp_path / "steps.png").stat().st_size > 0
    first = rows(tmp_path)
    assert len(first) == 4 * 3
    assert {(row["members"], row["images"], row["model"][:12]) for row in first} == {("1", "3", "step-000012-")}

    # As if it had been stopped after two images, with rows of another model before.
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    others = [line.replace("step-000012", "step-000099") for line in lines[1:]]
    (tmp_path / "steps.csv").write_text("\n".join([lines[0], *others, *lines[1:3]]) + "\n")
    sampled.clear()
    steps.main([*options, "--steps", "1", "2"])
    assert [len(ids) for _, _, ids in sampled] == [1, 3, 3, 3]
    assert rows(tmp_path)[12:] == first

    sampled.clear()
    steps.main([*options, "--steps", "1", "2"])
    assert sampled == []
    steps.main([*options, "--steps", "1", "--members", "2"])
    assert len(sampled) == 2


@pytest.fixture
def scores():
    names = [f"i{n}" for n in range(21)]
    return {
        ("ddpm", 100): {name: 0.8 for name in names},
        ("dpm++", 1): {name: 0.8 + 0.001 * n for n, name in enumerate(names)},
    }


def test_the_table_pairs_each_image_with_the_reference(scores):
    lines = steps.table(scores).splitlines()
    assert lines[0] == "| evaluations | ddpm | dpm++ |"
    assert lines[2].startswith("| 1 |  | 81.0 (+1.0; +0.7 to +1.")
    assert lines[3] == "| 100 | 80.0 |  |"
    del scores["ddpm", 100]
    assert steps.table(scores).splitlines()[2] == "| 1 | 81.0 |"


def test_the_picture_is_drawn(scores, tmp_path):
    steps.draw(tmp_path / "steps.png", scores)
    from PIL import Image

    assert np.asarray(Image.open(tmp_path / "steps.png").convert("L")).std() > 10
