import json
from datetime import datetime

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.training.journal import Journal


def lines(path):
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def test_each_event_is_a_line_with_its_time(tmp_path):
    journal = Journal(tmp_path)
    journal.note("start", 0, command="train é")
    journal.note("validation", 3, dice=0.5)
    start, validation = lines(tmp_path)
    assert (start["event"], start["step"], start["command"]) == ("start", 0, "train é")
    assert validation["dice"] == 0.5
    assert datetime.fromisoformat(start["time"]) <= datetime.fromisoformat(validation["time"])


@pytest.mark.parametrize("torn", [b"", b'{"event": "check', b'{"event": "a"}\n{"ev', b'{"event": "a"}\n'])
def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path, torn):
    (tmp_path / "events.jsonl").write_bytes(torn)
    journal = Journal(tmp_path)
    for step in (1, 2):
        journal.note("resume", step)
    assert [line["event"] for line in lines(tmp_path)] == ["a"] * torn.count(b"\n") + ["resume"] * 2


def test_a_path_that_is_no_unicode_is_noted(tmp_path):
    Journal(tmp_path).note("start", 0, command="train --out-dir caf\udce9 é")
    assert lines(tmp_path)[0]["command"] == "train --out-dir caf\udce9 é"


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(InputError, match=r"events\.jsonl"):
        Journal(tmp_path).note("start", 0)
