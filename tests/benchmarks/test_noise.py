import csv

import numpy as np
import pytest

from benchmarks import noise


def test_masks_of_three_noises_are_compared(given, tmp_path, sampled, capsys):
    path = tmp_path / "noise.csv"
    options = [*given, "--images", "3", "--members", "2", "--steps", "2", "--out", str(path)]
    noise.main(options)
    said = capsys.readouterr().out
    assert len(sampled) == 3
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(0 <= float(row[key]) <= 1 for row in rows for key in noise.PAIRS)
    noise.main(options)  # known
    assert len(sampled) == 3
    assert capsys.readouterr().out == said


def test_dice_across_is_the_mean_of_all_pairs():
    one, other = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    one[0], other[0, :2] = True, True
    assert noise.dice_across(np.array([one, other]), np.array([one])) == pytest.approx((1 + 2 * 2 / 6) / 2)


def test_the_table_gives_differences_image_by_image():
    rows = [{"ensemble": d, "seeds": d, "shuffled": d - 0.25} for d in (0.5, 0.75)]
    lines = noise.table(rows).splitlines()
    assert lines[2] == "| of one ensemble | 0.6250 | +0.0000 (+0.0000 to +0.0000) |"
    assert lines[3] == "| of two seeds | 0.6250 |  |"
    assert lines[4] == "| with its own and another image's noise | 0.3750 | -0.2500 (-0.2500 to -0.2500) |"
