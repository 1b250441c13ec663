import re
import subprocess
import sys

import numpy as np
from PIL import Image

from medsegdiff.masks.uncertainty import error_retention
from medsegdiff.plots.curves import draw_progress, draw_retention


def colours(path):
    with Image.open(path) as picture:
        return {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}


def test_both_curves_and_chance_are_drawn(tmp_path):
    retention = error_retention([0.1, 0.5, 0.2], [0.9, 0.8, 0.7])
    draw_retention(retention, tmp_path / "retention.png", "error", "confidence")
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0x80, 0x80, 0x80)} <= colours(tmp_path / "retention.png")
    assert [path.name for path in tmp_path.iterdir()] == ["retention.png"]


def test_the_curves_meet_where_all_are_kept(tmp_path):
    draw_retention(error_retention([0.1, 0.5, 0.2], [0.9, 0.8, 0.7]), tmp_path / "curve.svg", "error", "confidence")
    text = (tmp_path / "curve.svg").read_text()
    curve, oracle = (
        re.search(rf'<path d="M ([^"]+)" clip-path[^>]+stroke: {colour}', text)[1].split("\nL ")
        for colour in ("#0072b2", "#d55e00")
    )
    # The best comes first in both, then the worst of the three in one of them.
    assert [first == second for first, second in zip(curve, oracle)] == [True, False, True]


def test_the_suffix_chooses_the_format_and_words_are_shown(tmp_path):
    draw_retention(error_retention([0.5, 0.25], [1, 0]), tmp_path / "curve.svg", "1 - Dice", "agreement")
    text = (tmp_path / "curve.svg").read_text()
    for words in ("mean of 1 - Dice", "by agreement (area 0.438)", "least possible (area 0.312)", "area 0.375"):
        assert words in text


def test_progress_shows_the_loss_and_its_mean_and_the_best_dice(tmp_path):
    loss = [(step, 1 / step) for step in range(1, 31)]
    draw_progress([(0, 0.0), *loss], [(10, 0.5), (20, 0.75), (30, 0.6)], tmp_path / "progress.svg")
    text = (tmp_path / "progress.svg").read_text()
    assert "best 0.7500 at step 20" in text and "validation Dice" in text and "mean of the last 10 rows" in text
    lines = re.findall(r'<path d="M ([^"]+)" clip-path[^>]+stroke: #0072b2', text)
    assert [line.count("L") for line in lines] == [29, 29]
    draw_progress(loss[:1], [], tmp_path / "progress.svg")
    assert "validation Dice" not in (tmp_path / "progress.svg").read_text()


def test_importing_does_not_load_matplotlib():
    code = "import sys, medsegdiff.plots.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
