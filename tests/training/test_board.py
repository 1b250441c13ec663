import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.training.board import Board
from medsegdiff.training.logbook import Logbook
from tests.training.events import events, shown

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def child(code, *words):
    """Run `code` in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_numbers_and_pictures_are_there_at_once(tmp_path):
    board = Board(tmp_path)
    board.write(3, {"loss": 2.5, "val_dice": 0.5}, NOISE)
    first, *others = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert [value.tag for event in others for value in event.summary.value] == ["loss", "val_dice", "validation"]
    assert {event.step for event in others} == {3}
    picture = others[-1].summary.value[0].image
    assert (picture.height, picture.width, picture.colorspace) == (64, 64, 3)
    board.close()


def test_nothing_is_written_where_there_is_nothing_to_write(tmp_path):
    board = Board(tmp_path / "unused")
    board.flush()
    board.close()
    assert not (tmp_path / "unused").exists()


def test_a_full_disk_is_one_line_and_never_hangs(tmp_path):
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from medsegdiff.training.board import Board
from medsegdiff.base.errors import InputError
board = Board(Path(sys.argv[1]))
board.write(0, {"loss": 1.0})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
for step in range(1, 30):
    try:
        board.write(step, {"loss": 1.0}, picture)
    except InputError as error:
        print(step, error)
try:
    board.close()
except InputError:
    print("closed")
"""
    done = child(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert f" {tmp_path}/tensorboard: cannot be written: the file would be larger than" in first
    assert last == "closed"


def test_a_refusal_while_rows_are_brought_to_the_disk_is_one_line(tmp_path, monkeypatch):
    board = Board(tmp_path)
    board.write(1, {"loss": 1.0})

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"tensorboard: .* no space left"):
        patch.setattr(os, "fsync", full)
        board.flush()


def test_rows_of_a_killed_process_are_kept(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from medsegdiff.training.logbook import Logbook
book = Logbook(Path(sys.argv[1]), tensorboard=True)
for step in range(1, 6):
    book.add({"loss": np.ones(1)}, np.zeros(1, int), 10, {})
    book.write(step, step)
book.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert child(code, tmp_path).returncode == -signal.SIGKILL
    assert list(shown(tmp_path)) == [1, 2, 3, 4, 5]


def test_a_checkpoint_s_rows_are_on_the_disk_before_it(tmp_path, monkeypatch):
    book, synced = Logbook(tmp_path, tensorboard=True), []
    book.write(1, 1)
    fsync = os.fsync

    def noted(handle):
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    book.flush()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert {str(file), str(file.parent), str(tmp_path / "log.csv")} <= set(synced)


def test_what_a_crash_made_happen_twice_is_hidden(tmp_path):
    book = Logbook(tmp_path, tensorboard=True)
    for step in (6, 8, 10):
        book.add({"loss": np.full(1, step)}, np.zeros(1, int), 10, {})
        book.write(step, step)
    book = Logbook(tmp_path, tensorboard=True)
    book.resume(6, {})
    assert list(shown(tmp_path)) == [6, 8, 10]
    book.add({"loss": np.full(1, 5.0)}, np.zeros(1, int), 10, {})
    book.write(8, 8)
    assert {step: values["loss"] for step, values in shown(tmp_path).items()} == {6: 6, 8: 5}


def test_a_clock_that_was_set_back_does_not_change_the_order(tmp_path, monkeypatch):
    for index, now in enumerate((2e9, 1e9, 1e9), 1):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        board = Board(tmp_path)
        board.first = index
        board.write(index, {"loss": float(index)})
        board.close()
    assert shown(tmp_path) == {1: {"loss": 1}, 2: {"loss": 2}, 3: {"loss": 3}}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def test_a_validation_between_the_last_row_and_the_checkpoint_stays(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    book = Logbook(tmp_path, tensorboard=True, validated=True)
    book.write(6, 6)
    book.validate(7, 0.5, picture)
    pending = book.state()
    book.validate(9, 0.25, picture)  # after the checkpoint
    book = Logbook(tmp_path, tensorboard=True, validated=True)
    book.resume(6, pending, validated=7)
    book.write(8, 8)
    assert {step: values.get("val_dice") for step, values in shown(tmp_path).items()} == {6: None, 7: 0.5, 8: None}
