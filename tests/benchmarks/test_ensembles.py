import csv

import pytest

from benchmarks import ensembles


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ways_seeds_and_members_stand_beside_one_another(given, tmp_path, sampled, capsys):
    path = tmp_path / "ensembles.csv"
    options = [*given, "--images", "3", "--out", str(path)]
    ensembles.main([*options, "--members", "2", "--candidates", "ddpm:2", "ddpm:2:shuffle-noise"])
    ensembles.main([*options, "--members", "2", "--candidates", "ddpm:2", "--seed", "1"])
    ensembles.main([*options, "--members", "2..4", "--until", "1e-9", "--candidates", "ddpm:2"])
    assert len(sampled) == 4
    found = rows(path)
    settings = [("0", "2", ""), ("0", "2", ""), ("1", "2", ""), ("0", "2..4", "1e-09")]
    assert [(row["seed"], row["members"], row["until"]) for row in found] == settings
    assert [row["way"] for row in found] == ["ddpm:2", "ddpm:2:shuffle-noise", "ddpm:2", "ddpm:2"]
    assert [float(row["used"]) for row in found] == [2, 2, 2, 4]
    assert {(row["images"], row["model"][:12]) for row in found} == {("3", "step-000012-")}
    assert found[0]["agreement"] != found[2]["agreement"]
    assert all(float(row["seconds"]) > 0 for row in found)

    capsys.readouterr()
    ensembles.main([*options, "--members", "2", "--candidates", "ddpm:2"])  # known
    assert len(sampled) == 4
    assert rows(path) == found
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("| sampler and steps | Dice, ensemble |")
    assert "| members used | seconds an image |" in heading
    assert len(lines) == 1
    assert lines[0].startswith("| ddpm:2 |")


def test_a_single_member_is_refused(given, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        ensembles.main([*given, "--members", "1", "--out", str(tmp_path / "ensembles.csv")])
    assert ended.value.code == 2
    assert "at least two" in capsys.readouterr().err
