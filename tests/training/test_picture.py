import time

import pytest
from PIL import Image

from medsegdiff.training import picture
from medsegdiff.training.logbook import Logbook
from medsegdiff.training.picture import ProgressPicture


@pytest.fixture
def logbook(tmp_path):
    book = Logbook(tmp_path, tensorboard=False, validated=True)
    (tmp_path / "log.csv").write_text("step,loss,val_dice\n10,2.0,\n20,1.0,0.5\n")
    return book


def test_the_log_is_drawn(logbook, tmp_path):
    ProgressPicture(logbook).draw()
    with Image.open(tmp_path / "progress.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 500


def test_drawing_takes_a_small_share_of_the_time(logbook, monkeypatch):
    calls = []
    monkeypatch.setattr(picture, "draw_progress", lambda *given: calls.append(given) or time.sleep(0.02))
    shown = ProgressPicture(logbook)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:  # at 1 % the next one is due 2 s later
        shown.draw()
    assert [call[:2] for call in calls] == [([(10, 2), (20, 1)], [(20, 0.5)])]
    shown.draw(at_once=True)
    assert len(calls) == 2


def test_what_fails_is_told_once_and_stops_nothing(logbook, monkeypatch, capsys):
    def fail(*given):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(picture, "draw_progress", fail)
    shown = ProgressPicture(logbook)
    for _ in range(2):
        shown.draw(at_once=True)
    assert capsys.readouterr().err == f"note: {shown.path}: not drawn (no font)\n"


def test_without_rows_there_is_no_picture(tmp_path):
    ProgressPicture(Logbook(tmp_path, tensorboard=False)).draw()
    assert list(tmp_path.iterdir()) == []
