import json

from benchmarks import sampling


def test_ways_are_timed_and_their_dice_is_continued(given, tmp_path, sampled, capsys):
    options = [*given, "--dice-images", "3", "--dice", str(tmp_path / "dice.csv"), "--out", str(tmp_path / "s.json")]
    sampling.main([*options, "--rounds", "1"])
    said = capsys.readouterr().out
    assert said.count("largest difference of the published method's masks") == 2
    assert said.count(": 0.0e+00") == 2
    assert "published: 8 ddpm steps" in said
    assert "Dice over 3 images" in said
    measured = json.loads((tmp_path / "s.json").read_text())
    assert [len(times) for times in measured["seconds"].values()] == [1, 1, 1, 1]
    assert set(measured) == {"seconds", "medians"}

    lines = (tmp_path / "dice.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    (tmp_path / "dice.csv").write_text("\n".join(lines[:3]) + "\n")  # stopped after two images
    sampled.clear()
    sampling.main([*options, "--rounds", "0"])
    assert [(steps, len(ids)) for _, steps, ids in sampled] == [(8, 1), (3, 3)]
    assert (tmp_path / "dice.csv").read_text().splitlines() == lines
    assert capsys.readouterr().out == said[said.index("Dice over") :]
