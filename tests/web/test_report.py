import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.metrics import Rules
from medsegdiff.evaluation.truth import truth_from_folder
from medsegdiff.io.predictions import Maps, write_prediction
from medsegdiff.web.report import write_report
from tests.web.conftest import SHAPE, predict, train


class Page(HTMLParser):
    """What is fetched, which ids there are, and whether all that opens is closed."""

    VOID = ("meta", "img", "path", "circle", "use", "image")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[name] for name in ("src", "href") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def page(predictions, tmp_path):
    return write_report([predictions], tmp_path / "page.html").read_text()


def test_every_part_is_there(page):
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "At a glance", "Training", "Scores", "How far to trust it", "Cases", "Speed", "Data and code", "Options",
    ]  # fmt: skip
    for title in ("Training loss", "Validation Dice", "Distribution of Dice", "Calibration", "Error retention"):
        assert f"<h3>{title}</h3>" in page
    for words in (
        "f1n6er",
        "Some Processor, 2 threads",
        "2 s a step",
        "2 s an image",
        "0.0003",
        "Best 0.750 at step 30",
    ):
        assert words in page
    assert re.search(r"dataset spec channels|training data: spec channels", page)
    for label in ("HD95 (pixels, best 0)", "NSD at 1 pixels"):
        assert re.search(rf'<th scope="row">{re.escape(label)}</th><td>[\d.]+ \([\d.]+ to [\d.]+\)</td>', page)
    assert page.count('class="mask"') == 6  # two of each kind
    assert "8 of 8 images" in page


def test_the_page_needs_nothing_else_and_is_well_formed(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert "<script" not in page and "url(" not in page and "@import" not in page


def test_what_files_hold_is_text_and_no_markup(page):
    assert "case&lt;0&gt;" in page and "not &lt;real&gt;" in page and "train &lt;here&gt;" in page
    assert "case<0>" not in page and "<real>" not in page and "<here>" not in page


def test_runs_stand_side_by_side(predictions, tmp_path):
    train(tmp_path / "second", loss=(3.0, 2.0, 1.5), images=9)
    worse = predict(tmp_path / "worse", tmp_path / "second" / "step-000030" / "model.safetensors", shift=2)
    page = write_report([predictions, worse], tmp_path / "page.html").read_text()
    Page(page)
    assert page.count('<th scope="col"><span class="key s1"') >= 3
    assert page.count('class="mask"') == 12
    row = re.search(r'<tr><th scope="row">training data: images</th><td>(\d)</td><td>(\d)</td></tr>', page)
    assert row.groups() == ("7", "9")
    assert "run: 2 to 0.5 at step 30; second: 3 to 1.5 at step 30." in page


def test_without_scores_the_rest_is_shown_and_the_gap_said(training, tmp_path):
    page = write_report([training], tmp_path / "page.html").read_text()
    assert "predictions: none named" in page and "not scored on test images" in page
    assert "Cases</h2>" not in page and "Scores</h2>" not in page and "Training loss" in page


def test_images_that_are_empty_in_both_and_skipped_have_no_dice(predictions, tmp_path):
    empty = np.zeros((1, *SHAPE), np.float32)
    write_prediction(predictions, "nothing", Maps(empty))
    Image.fromarray(empty[0] > 0).save(predictions.parent / "truths" / "nothing.png")
    evaluate(predictions, truth_from_folder(predictions.parent / "truths"), Rules(empty="skip"), out=predictions)
    page = write_report([predictions], tmp_path / "page.html").read_text()
    assert "of 8 images below 0.5" in page and "nothing" not in page


def test_the_command_writes_beside_what_it_is_about(predictions, capsys):
    assert main(["report", str(predictions)]) == 0
    assert capsys.readouterr().out == f"report: {predictions / 'report.html'}\n"
    first = (predictions / "report.html").read_bytes()
    assert main(["report", str(predictions)]) == 0
    assert (predictions / "report.html").read_bytes() == first


def test_a_folder_whose_name_is_no_unicode_is_shown(tmp_path):
    train(tmp_path / "run").rename(tmp_path / "caf\udce9")
    assert "caf\\udce9" in write_report([tmp_path / "caf\udce9"], tmp_path / "page.html").read_text()


def test_a_page_of_the_user_s_is_not_overwritten(predictions, tmp_path, capsys):
    (tmp_path / "mine.html").write_text("mine")
    assert main(["report", str(predictions), "--out", str(tmp_path / "mine.html")]) == 2
    assert "mine.html: not written by report" in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "mine"
    with pytest.raises(InputError, match="cannot be written"):
        write_report([predictions], predictions / "run.json" / "page.html")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", {"metrics": 5}),
        ("metrics.json", {"metrics": {"dice": {"mean": "high"}}}),
        ("metrics.json", {"predictions": [1]}),
        ("metrics.json", {"not measured": 5}),
        ("run.json", {"sampling": 5}),
        ("run.json", {"sampling": {}, "images": 5}),
    ],
)
def test_files_of_another_shape_are_one_line(predictions, capsys, name, content):
    (predictions / name).write_text(json.dumps(content))
    assert main(["report", str(predictions)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {predictions}: a file there is not what medsegdiff writes (")
    assert not (predictions / "report.html").exists()


def test_an_empty_name_is_not_the_working_directory(predictions, monkeypatch, capsys):
    monkeypatch.chdir(predictions)
    assert main(["report", ""]) == 2
    assert 'RUN "": is empty' in capsys.readouterr().err
