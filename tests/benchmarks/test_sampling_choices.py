import csv

import numpy as np

from benchmarks import sampling_choices


def test_a_choice_is_paired_with_the_defaults_and_measured_once(given, tmp_path, sampled, capsys):
    out = tmp_path / "choices.csv"
    options = [*given, "--out", str(out), "--seeds", "0", "1", "--only", "default", "1-member", "postprocess"]
    sampling_choices.main(options)
    assert len(sampled) == 6
    table = capsys.readouterr().out
    sampling_choices.main(options)
    assert len(sampled) == 6
    assert capsys.readouterr().out == table
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    dice = {
        name: np.mean([float(row["dice"]) for row in rows if row["row"] == name])
        for name in ("default", "1-member", "postprocess")
    }
    assert len(rows) == 6  # one image is held out of four
    heading, _, first, *others = table.splitlines()
    assert heading == "| sampling | Dice | Dice minus default's |"
    assert first.startswith(f"| default | {dice['default']:.2f} (")
    for name, line in zip(("1-member", "postprocess"), others):
        assert line.startswith(f"| {name} | {dice[name]:.2f} (")
        assert f"| {dice[name] - dice['default']:+.2f} (" in line
