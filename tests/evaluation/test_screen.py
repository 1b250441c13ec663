import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medsegdiff.evaluation.measure import Score
from medsegdiff.evaluation.metrics import COMPARED, METRICS, class_metrics, columns
from medsegdiff.evaluation.report import Report
from medsegdiff.evaluation.screen import tables
from medsegdiff.evaluation.summary import Calibration, comparison, selection, summaries
from medsegdiff.masks.protocols import make_protocol


def printed(report, width=200):
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    console.print(tables(report))
    return console.file.getvalue()


def row(text, label):
    """The cells of the first row of a table that begins with `label`."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return next(cells[1:] for cells in lines if cells[0] == label)


def images(num_classes, *values):
    always, others = columns(num_classes)
    return [Score(f"i{n}", Path("x.png"), dict.fromkeys([*always, *others], value)) for n, value in enumerate(values)]


def build(scores, num_classes=2, **more):
    keys = [*METRICS, *class_metrics(num_classes)]
    report = {"missing": [], "protocol": make_protocol(size=64), "num_classes": num_classes, **more}
    return Report(scores, summaries(scores, keys, 0), **report)


@pytest.fixture
def full():
    scores = images(2, 0.25, 0.75)
    scores[1].metrics["cal_dice"] = 0.5
    return build(
        scores,
        calibration=Calibration(0.125, 2, np.full((3, 15), 0.5)),
        comparison=comparison(scores, 0),
        selection=selection(scores),
    )


def test_all_tables_hold_their_numbers(full):
    text = printed(full)
    assert row(text, "Dice at 0.5")[0] == "0.5000"  # the first table's
    assert row(text, "GED of the members (best 0)") == ["0.5000", "0.3536", "0.2500 to 0.7500"]
    assert row(text, "Expected calibration error") == ["0.1250", "-", "-"]
    lines = [line for line in text.splitlines() if "ensemble - network" in line]
    assert len(lines) == len(COMPARED)
    assert "+0.1250" in lines[0]  # (0 + 0.25) / 2 in Dice at 0.5
    assert "+0.0000 to +0.2500" in lines[0]
    assert "+0.0000 to +0.0000" in lines[1]
    assert row(text, "area under the curve, by agreement") == ["0.3750"]
    assert row(text, "by chance") == ["0.5000"]
    assert row(text, "images that agree because all members are empty") == ["0"]
    assert row(text, "Spearman's rank correlation of agreement and Dice") == ["+1.0000"]


def test_tables_fit_80_columns(full):
    lines = printed(full, width=80).splitlines()
    tabled = [line for line in lines if line and line[0] in "┏┃┡│├└"]
    assert max(map(len, tabled)) <= 80
    assert all(line.rstrip()[-1] in "┓┃┩│┤┘" for line in tabled)
    for words in ("published", "Spearman's rank correlation of agreement and Dice", "ensemble - network"):
        assert any(words in line for line in tabled)
    assert sum("protocol" in line for line in tabled) == 2  # no label had to be wrapped


def test_rows_over_fewer_images_say_so():
    scores = images(2, 0.25, 0.75, 0.5)
    del scores[2].metrics["ged"]
    text = printed(build(scores, calibration=Calibration(0.1, 1, np.full((3, 15), 0.5))))
    assert row(text, "GED of the members (best 0) (2 images)")[0] == "0.5000"
    assert "Expected calibration error (1 images)" in text
    assert row(text, "Brier score (best 0)")[0] == "0.5000"


def test_classes_have_a_table_of_their_own():
    scores = images(4, 0.25, 0.75)
    for score in scores:
        score.metrics["recall_class3"] = 1.0
    text = printed(build(scores, num_classes=4))
    assert row(text, "1") == ["0.5000"] * 5
    assert row(text, "3") == ["0.5000", "0.5000", "0.5000", "1.0000", "0.5000"]
    assert row(text.rpartition("ASSD")[2], "2") == ["0.5000"] * 4
    assert "Each foreground class" not in printed(build(images(2, 0.5, 0.6)))


def test_gaps_notes_and_missing_images_are_told():
    missing = [f"m{n}" for n in range(7)]
    text = printed(build(images(2, 0.5), missing=missing, note="masks [redrawn]", gaps=("GED: none", "ECE: none")))
    assert "1 of 8 images" in text
    assert "7 without a prediction" in text
    assert "m4 and 2 more" in text
    assert "m5" not in text
    for line in ("masks [redrawn]", "GED: none", "ECE: none"):
        assert line in text


def test_what_the_numbers_mean_takes_one_line(full):
    below = printed(full).rstrip().rpartition("┘")[2].strip()
    assert below == (
        'Published protocol: ours, 64 x 64. What each number means: docs/metrics.md, and "conventions" in metrics.json.'
    )


def test_what_has_no_number_is_a_dash():
    assert "nan" not in printed(build(images(2, 0.5), comparison=comparison(images(2, 0.5), 0)))
    alike = selection(images(2, 0.5, 0.5))
    assert np.isnan(alike.correlation)
    text = printed(build(images(2, 0.5, 0.5), selection=alike))
    assert row(text, "Spearman's rank correlation of agreement and Dice") == ["-"]


def test_a_class_that_never_occurs_has_no_number():
    scores = images(3, 0.25)
    for name in class_metrics(3):
        if name.endswith("2"):
            del scores[0].metrics[name]
    text = printed(build(scores, num_classes=3))
    assert row(text, "1") == ["0.2500"] * 5
    assert row(text, "2") == ["-"] * 5
