from __future__ import annotations

import itertools
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from medsegdiff.base import ownership
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import MANIFEST, Ledger


def write(folder, files, by="test", **options):
    with Ledger(folder, by).together("last", **options) as stage:
        for name, text in files.items():
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_text(text)


def contents(folder):
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if name != MANIFEST}


def test_what_was_written_is_replaced_and_what_was_not_stays(tmp_path):
    write(tmp_path / "new", {"a": "1", "in/b": "2", "last": "3"})
    (tmp_path / "new" / "in" / "notes").write_text("mine")
    write(tmp_path / "new", {"in/b": "4", "last": "5"}, instead_of=["a"])
    assert contents(tmp_path / "new") == {"in/b": "4", "in/notes": "mine", "last": "5"}
    with pytest.raises(
        InputError, match=r"notes: not written by test, .* lost; move it elsewhere, or write to another"
    ):
        write(tmp_path / "new", {"in/notes": "6", "last": "7"})
    assert contents(tmp_path / "new") == {"in/b": "4", "in/notes": "mine", "last": "5"}


@pytest.mark.parametrize("name", ["a", "last", "old"])
def test_a_file_that_was_changed_since_is_the_user_s(tmp_path, name):
    write(tmp_path, {"a": "1", "last": "2", "old": "3"})
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{name}: not written by test, or changed since"):
        write(tmp_path, {"a": "4", "last": "5"}, instead_of=["old"])
    assert contents(tmp_path) == before


def test_another_command_s_file_is_not_this_one_s(tmp_path):
    write(tmp_path, {"last": "1"}, by="train")
    with pytest.raises(InputError, match="last: not written by sample"):
        write(tmp_path, {"last": "2"}, by="sample")
    assert contents(tmp_path) == {"last": "1"}


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_links_are_the_user_s(tmp_path, target):
    (tmp_path / "elsewhere").write_text("mine")
    out = tmp_path / "out"
    write(out, {"last": "mine"})
    (out / "last").unlink()
    (out / "last").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="last: not written by test"):
        write(out, {"last": "2"})
    assert (out / "last").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_links_to_folders_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "in").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="in/a: not written by test"):
        write(tmp_path / "out", {"in/a": "1"})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_failure_changes_nothing(tmp_path):
    write(tmp_path, {"a": "1", "last": "2"})
    for error in (InputError, KeyboardInterrupt):
        with pytest.raises(error), Ledger(tmp_path, "test").together("last", ["a"]) as stage:
            (stage / "a").write_text("3")
            raise error
    assert contents(tmp_path) == {"a": "1", "last": "2"}


def test_a_crash_between_the_manifest_and_the_names_is_no_loss(tmp_path, monkeypatch):
    write(tmp_path, {"a": "1", "last": "2"})
    original = type(tmp_path).replace

    def crash(self, target):
        if self.name == "last":
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, {"a": "3", "last": "4"})
    assert contents(tmp_path) == {"a": "3"}  # what says that all are there is absent
    write(tmp_path, {"a": "5", "last": "6"})
    assert contents(tmp_path) == {"a": "5", "last": "6"}


def test_nothing_gets_its_name_when_the_manifest_finds_no_room(tmp_path, monkeypatch):
    write(tmp_path, {"a": "1", "last": "2"})
    original = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: original(handle, data[:9]))
        with pytest.raises(InputError, match="no space left"):
            write(tmp_path, {"a": "3", "last": "4"})
    assert contents(tmp_path) == {"a": "1", "last": "2"}
    write(tmp_path, {"a": "5", "last": "6"})
    assert contents(tmp_path) == {"a": "5", "last": "6"}


def test_files_that_grow_are_own_whatever_they_hold(tmp_path):
    Ledger(tmp_path, "test").claim(["log"], grows=True)
    (tmp_path / "log").write_text("more")
    assert Ledger(tmp_path, "test").owns("log")
    assert not Ledger(tmp_path, "other").owns("log")


def test_own_files_are_removed_all_or_none(tmp_path):
    write(tmp_path, {"a": "1", "last": "2"})
    (tmp_path / "mine").write_text("3")
    with pytest.raises(InputError, match="mine: not written by test"):
        Ledger(tmp_path, "test").remove(["a", "mine"])
    assert set(contents(tmp_path)) == {"a", "last", "mine"}
    Ledger(tmp_path, "test").remove(["a", "last", "absent"])
    assert set(contents(tmp_path)) == {"mine"}


def test_a_damaged_manifest_makes_nothing_own(tmp_path):
    write(tmp_path, {"last": "1"}, about={"image": "x"})
    manifest = tmp_path / MANIFEST
    (group,) = Ledger(tmp_path, "test").groups
    assert group.about == {"image": "x"}
    whole = manifest.read_bytes()
    odd = [b"[" * 100_000, b"\xff\n", b"null\n", b'{"by": "test", "files": [], "about": {}}\n', whole[:-20]]
    for content in [*odd, json.dumps({"by": "test", "files": {"last": [1]}, "about": {}}).encode() + b"\n"]:
        manifest.write_bytes(content)
        assert not Ledger(tmp_path, "test").owns("last")
    manifest.write_bytes(whole[:-20])
    Ledger(tmp_path, "test").claim(["last"])  # in a line of its own
    assert Ledger(tmp_path, "test").owns("last")


def test_a_manifest_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link is in the way"):
        write(tmp_path / "out", {"a": "1"})
    assert not (tmp_path / "elsewhere").exists()


def test_a_manifest_that_is_a_pipe_is_in_the_way(tmp_path):
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(InputError, match="a file of this name is in the way"):
        write(tmp_path, {"a": "1"})
    assert not (tmp_path / "a").exists()


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(tmp_path):
    left, mine, probe = tmp_path / f".{'0' * 32}.tmp", tmp_path / ".notes.tmp", tmp_path / f".{'1' * 32}.tmp"
    probe.touch()
    for folder in (left, mine):
        folder.mkdir()
        (folder / "a").touch()
    with Ledger(tmp_path, "one").together("a") as first:
        assert not left.exists() and not probe.exists()
        assert mine.exists()
        (first / "a").write_text("first")
        with Ledger(tmp_path, "two").together("b") as second:
            assert first.exists()
            (second / "b").write_text("second")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["first", "second"]


def test_threads_write_groups_at_the_same_time_and_one_s_failure_is_its_own(tmp_path, monkeypatch):
    lock = ownership.system.lock

    remove, turns = ownership._remove_abandoned, itertools.count()

    def slow(handle, wait=True):  # so that a stage stays unlocked long enough to pass for a killed process's
        time.sleep(0.02 * wait)
        lock(handle, wait=wait)

    def in_turn(folder):
        time.sleep(0.01 * next(turns))
        remove(folder)

    monkeypatch.setattr(ownership.system, "lock", slow)
    monkeypatch.setattr(ownership, "_remove_abandoned", in_turn)
    (tmp_path / f".{'0' * 32}.tmp").mkdir()
    ledger, meeting = Ledger(tmp_path, "test"), threading.Barrier(4)

    def work(number):
        for turn in range(5):
            meeting.wait(30)
            with suppress(OSError), ledger.together(f"{number}-{turn}", about={"turn": turn}) as stage:
                (stage / f"{number}-{turn}").write_text("mask")
                (stage / f"{number}-{turn}-map").write_text("map")
                meeting.wait(30)  # all stages are there now
                if (number, turn) == (0, 1):
                    raise OSError("no picture")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    written = {f"{number}-{turn}{end}" for number in range(4) for turn in range(5) for end in ("", "-map")}
    written -= {"0-1", "0-1-map"}
    assert set(contents(tmp_path)) == written
    assert all(json.loads(line)["by"] == "test" for line in (tmp_path / MANIFEST).read_bytes().splitlines())
    again = Ledger(tmp_path, "test")
    assert sorted(tuple(group.files) for group in again.groups) == sorted(tuple(group.files) for group in ledger.groups)
    assert all(map(again.owns, written)) and len(again.groups) == 19
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_thread_s_line_that_the_disk_cuts_short_does_not_swallow_another_s(tmp_path, monkeypatch):
    write(tmp_path, {"last": "1"})
    ledger, meeting, turns = Ledger(tmp_path, "test"), threading.Barrier(2), itertools.count()
    look, note = os.read, os.write

    def together(handle, size):
        end = look(handle, size)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)  # where threads take turns there is no meeting
        return end

    monkeypatch.setattr(os, "read", together)
    monkeypatch.setattr(os, "write", lambda handle, data: note(handle, data if next(turns) else data[:9]))

    def work(name):
        with ledger.together(name) as stage:
            (stage / name).write_text("mask")

    with ThreadPoolExecutor(2) as pool:
        failed = [one.exception(30) for one in [pool.submit(work, name) for name in "ab"]]
    assert sum(isinstance(error, InputError) for error in failed) == 1
    kept = "ab"[failed.index(None)]
    assert contents(tmp_path) == {"last": "1", kept: "mask"}
    assert Ledger(tmp_path, "test").owns(kept)
