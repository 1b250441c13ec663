import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.evaluation.measure import Score
from medsegdiff.evaluation.metrics import METRICS, columns
from medsegdiff.evaluation.report import Report
from medsegdiff.evaluation.summary import Calibration, comparison, selection, summaries
from medsegdiff.masks.protocols import make_protocol

ALWAYS, OTHERS = columns(2)


@pytest.fixture
def scores():
    """Two images with everything."""
    keys = [*ALWAYS, *OTHERS]
    return [Score(id, Path(f"pred/{id}.png"), dict.fromkeys(keys, value)) for id, value in (("a", 0.25), ("b", 0.75))]


BINS = np.array([[0.5, 0, 0.5], [0.125, 0, 0.375], [0, 0, 0.5]])


def build(scores, **more):
    return Report(scores, summaries(scores, METRICS, 0), ["c"], make_protocol(size=64), **more)


def full(scores):
    return build(
        scores, calibration=Calibration(0.125, 2, BINS), comparison=comparison(scores, 0), selection=selection(scores)
    )


def written(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / "metrics.json").read_text())


def test_everything_is_written(tmp_path, scores):
    full(scores).write(tmp_path / "new")
    rows, content = written(tmp_path / "new")
    assert list(rows[0]) == ["id", *ALWAYS, "prediction", *OTHERS]
    assert [row["id"] for row in rows] == ["a", "b"]
    assert {float(rows[1][key]) for key in rows[1] if key not in ("id", "prediction")} == {0.75}

    assert content["metrics"]["ged"]["mean"] == 0.5
    calibration = {"ece": 0.125, "images": 2, "bins": 3, "share": [0.5, 0.0, 0.5]}
    calibration.update({"probability": [0.25, None, 0.75], "observed": [0.0, None, 1.0]})
    assert content["calibration"] == calibration
    assert content["comparison"]["images"] == 2
    assert content["comparison"]["dice"]["cal"]["mean"] == 0.5
    assert content["comparison"]["dice"]["ensemble - cal"]["high"] == 0
    retention = content["error retention"]
    assert (retention["area"], retention["oracle area"], retention["random area"]) == (0.375, 0.375, 0.5)
    assert retention["images with empty members alone"] == 0
    assert retention["spearman"] == pytest.approx(1)
    assert retention["curve"] == [0.25, 0.5]
    assert (tmp_path / "new" / "retention.png").stat().st_size > 0


def test_a_folder_whose_name_is_no_unicode_is_written(tmp_path):
    keys = [*ALWAYS, *OTHERS]
    build([Score("a", Path("caf\udce9/a.png"), dict.fromkeys(keys, 1.0))]).write(tmp_path)
    assert written(tmp_path)[1]["predictions"].endswith("/caf\udce9")


def test_what_is_absent_is_null_and_empty_and_told(tmp_path, scores):
    full(scores).write(tmp_path)
    bare = [Score(score.id, score.prediction, {key: score.metrics[key] for key in ALWAYS}) for score in scores]
    build(bare, gaps=("nothing was saved",)).write(tmp_path)
    rows, content = written(tmp_path)
    assert rows[0]["ged"] == rows[0]["cal_dice"] == ""
    assert content["calibration"] is content["comparison"] is content["error retention"] is None
    assert content["not measured"] == ["nothing was saved"]
    assert set(content["metrics"]) == set(ALWAYS)
    assert not (tmp_path / "retention.png").exists()  # of the evaluation before


def test_conventions_speak_of_what_is_there(scores):
    bare = [Score(score.id, score.prediction, {key: score.metrics[key] for key in ALWAYS}) for score in scores]
    more = {METRICS["brier"].label, METRICS["ged"].label, "expected calibration error", "one member", "error retention"}
    assert more <= full(scores).conventions.keys()
    assert not more & build(bare).conventions.keys()
    assert "64 x 64" in build(bare).conventions["published protocol"]
    assert "of 255" not in build(bare, num_classes=3).conventions["at 0.5"]
    assert "2 foreground classes" in build(bare, num_classes=3).conventions["classes"]


def test_a_correlation_that_is_none_is_null(tmp_path, scores):
    for score in scores:
        score.metrics["agreement"] = 0.5
    report = full(scores)
    assert math.isnan(report.selection.correlation)
    report.write(tmp_path)
    assert written(tmp_path)[1]["error retention"]["spearman"] is None
