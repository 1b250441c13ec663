from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.base import system

WINDOWS = "from tests import windows\nwindows.begin()\n"
systems = pytest.mark.parametrize("first", ["", WINDOWS], ids=["Linux", "Windows"])


def python(folder, code, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, text=True, **pipes, **options)


def said(folder, code):
    out, errors = python(folder, code).communicate(timeout=60)
    assert errors == ""
    return out


HOLD = """
import os
from medsegdiff.base import system
handle = os.open("file", os.O_RDWR | os.O_CREAT)
system.lock(handle)
print("held", flush=True)
input()
os.close(handle)
"""
ASK = """
import os
from medsegdiff.base import system
handle = os.open("file", os.O_RDWR | os.O_CREAT)
for options in ({}, {"shared": True}):
    try:
        system.lock(handle, wait=False, **options)
        print("free", end=" ")
    except BlockingIOError:
        print("taken", end=" ")
"""


@systems
def test_a_lock_is_one_s_own_until_its_process_is_killed(tmp_path, first):
    holder = python(tmp_path, first + HOLD)
    assert holder.stdout.readline() == "held\n"
    assert said(tmp_path, first + ASK) == "taken taken "
    waiting = python(tmp_path, first + ASK.replace("wait=False", "wait=True"))
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    holder.kill()
    holder.communicate()
    assert waiting.communicate(timeout=20)[0] == "free free "
    assert said(tmp_path, first + ASK) == "free free "


@systems
def test_a_lock_keeps_out_other_handles_of_the_process(tmp_path, first):
    code = """
import os
from medsegdiff.base import system
one, other = (os.open("file", os.O_RDWR | os.O_CREAT) for _ in range(2))
system.lock(one)
system.lock(one)
try:
    system.lock(other, wait=False)
except BlockingIOError:
    print("taken")
os.close(one)
system.lock(other, wait=False)
"""
    assert said(tmp_path, first + code) == "taken\n"


@systems
def test_a_folder_is_held_and_files_come_together(tmp_path, first):
    code = """
import os
from pathlib import Path
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import exclusive, replacing
from medsegdiff.base.ownership import Ledger
folder = Path()
with exclusive(folder), Ledger(folder, "one").together("b") as stage:
    (stage / "a").write_bytes(b"1")
    (stage / "in").mkdir()
    (stage / "in" / "b").write_bytes(b"2")
    (stage / "b").write_bytes(b"3")
    with Ledger(folder, "two").together("c") as other:  # which must not take the first one's stage away
        (other / "c").write_bytes(b"4")
    assert (stage / "a").exists()
assert Ledger(folder, "one").owns("in/b")
left = folder / f".{'0' * 32}.tmp"
left.mkdir()
(left / ".lock").touch()
(left / "half").touch()
for content in (b"5", b"6"):
    with replacing(folder / "whole") as beside:
        beside.mkdir()
        (beside / "part").write_bytes(content)
    with Ledger(folder, "one").together("b") as stage:
        (stage / "b").write_bytes(content)
print(sorted(str(path) for path in folder.rglob("*")))
print(folder.joinpath(".medsegdiff.jsonl").read_bytes().count(b"\\r"))
"""
    listed = ["whole", "whole/part"]
    lock = [".medsegdiff.lock"] * bool(first)  # Windows keeps what is open
    listed = sorted([*lock, ".medsegdiff.jsonl", "a", "b", "c", "in", "in/b", *listed])
    assert said(tmp_path, first + code) == f"{listed}\n0\n"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, False) for name in ("a:b", "a?", "con", "CON.png", "com1.tar.gz", "lpt²", "a.", "a ", "a\n", 'a"')),
        *((name, True) for name in ("a", "a.b.png", "cons.png", "com", "com10", ".a", "病例 1", "null.png")),
    ],
)
def test_names_that_windows_keeps_for_itself(monkeypatch, name, is_one):
    assert system.names_a_file(name)
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.names_a_file(name) == is_one


def test_a_file_that_a_scanner_has_open_is_waited_for(monkeypatch, tmp_path):
    tries, original = [], Path.replace

    def busy(path, target):
        tries.append(path)
        if len(tries) < 4:
            raise PermissionError(errno.EACCES, "it is being used")
        original(path, target)

    (tmp_path / "new").touch()
    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "new", tmp_path / "old")
    assert len(tries) == 1  # elsewhere it is no matter of time
    monkeypatch.setattr(system, "WINDOWS", True)
    system.replace(tmp_path / "new", tmp_path / "old")
    assert len(tries) == 4
    tries.clear()
    monkeypatch.setattr(system, "_PATIENCE", 0.02)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "old", tmp_path / "new")
    assert 1 < len(tries) < 4


def test_home_on_windows(tmp_path):
    code = (
        WINDOWS + "from medsegdiff.base import machine; print(machine.home()); import os; del os.environ['USERPROFILE']"
    )
    code += "\ntry: machine.home()\nexcept Exception as error: print(error)"
    told = said(tmp_path, f"import os; os.environ['HOME'] = '/users/me'\n{code}")
    assert told.startswith("/users/me\nHOME: is not set, and this user has no home folder")


def test_the_console_of_windows_is_written_to_by_itself(tmp_path):
    """Its file of bytes has another encoding than the stream that Python makes for it."""
    code = """
import io, sys
from medsegdiff.base import streams
class Console(io.RawIOBase):
    def writable(self): return True
    def fileno(self): return 2
    def write(self, data): print(bytes(data).decode("utf-8")); return len(data)
sys.stderr = sys.__stderr__ = io.TextIOWrapper(io.BufferedWriter(Console()), "utf-8", line_buffering=True)
streams.secure()
print("\\N{CIRCLED DIGIT ONE}", file=sys.stderr)
"""
    assert said(tmp_path, code).strip() == "①"
