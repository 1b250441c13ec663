import io
import json
import re
import sys

import pytest

from medsegdiff.base import screen
from medsegdiff.base.screen import Bar, note, speaking, tell, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that each unit of work moves on by 3 seconds."""
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    return lambda: now.__setitem__(0, now[0] + 3)


def work(clock, count=10, **options):
    with Bar(100, "training", "step", **options) as bar:
        for number in range(count):
            clock()
            bar.words["loss"] = f"{number}"
            bar.update()


def test_without_a_terminal_there_are_plain_lines_now_and_then(clock, capsys):
    work(clock, 10)
    assert capsys.readouterr().err.splitlines() == [
        "training: 7 of 100 steps in 0:21, 4:39 left, loss 6",
        "training: 10 of 100 steps in 0:30, 4:30 left, loss 9",
    ]


def test_what_was_done_before_says_nothing_of_the_speed(clock, capsys):
    work(clock, 10, done=80)
    assert capsys.readouterr().err.splitlines()[-1] == "training: 90 of 100 steps in 0:30, 0:30 left, loss 9"


def test_what_is_soon_over_is_not_shown(clock, capsys):
    work(clock, 3, after=10)
    assert capsys.readouterr().err == ""
    assert list(track(range(3), 3, "reading", "file")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_the_bar_fits_a_terminal_of_80_columns_and_keeps_notes_whole(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Bar(300, "305 images x 5 members x 25 steps", "eval") as bar:
        bar.words = {"loss": "0.1234", "val_dice": "0.8912"}
        clock()
        bar.update(150)
        note("note: something")
        clock()
        bar.update(150)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = re.split(r"[\r\n]+", text)
    assert "note: something" in [line.rstrip() for line in lines]
    assert any("150/300 evals" in line for line in lines) and any("300/300 evals" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b[" in terminal.getvalue()


def test_as_json_there_is_one_object_and_all_else_is_elsewhere(capsys):
    with speaking(as_json=True):
        print("a table")
        tell("trained", steps=3, checkpoint=screen)
    said = capsys.readouterr()
    assert json.loads(said.out)["steps"] == 3
    assert said.err == "a table\ntrained\n"


def test_quiet_is_silent_and_only_as_long_as_asked(clock, capsys):
    with speaking(quiet=True):
        tell("result", x=1)
        note("note")
        work(clock, 10)
    assert capsys.readouterr() == ("", "")
    with speaking(quiet=True, as_json=True):
        tell("result", x=1)
    assert json.loads(capsys.readouterr().out) == {"x": 1}
    with speaking():
        tell("result")
        note("note")
    assert capsys.readouterr() == ("result\n", "note\n")


def test_notes_name_options_as_commands_or_as_python_does(capsys):
    with speaking():
        note("note: `clip_grad` 2.0")
    note("note: `clip_grad` 2.0")
    assert capsys.readouterr().err == "note: --clip-grad 2.0\nnote: clip_grad 2.0\n"


def test_what_fails_prints_no_object(capsys):
    with pytest.raises(ValueError), speaking(quiet=True, as_json=True):
        raise ValueError
    note("heard")
    assert capsys.readouterr() == ("", "heard\n")


def test_units_of_different_work_are_estimated_by_it(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    with screen.Bar(4, "compiling", "file", weights=[70, 10, 10, 10]) as bar:
        now[0] = 70.0
        bar.update()
    assert "compiling: 1 of 4 files in 1:10, 0:30 left" in capsys.readouterr().err
