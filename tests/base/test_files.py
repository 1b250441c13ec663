import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path

import pytest

from medsegdiff.base import files
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import LOCK, clear_leftovers, exclusive, make_folder, replacing, writing


def write_folder(folder, **texts):
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


def read_folder(folder):
    return {entry.name: entry.read_text() for entry in folder.iterdir()}


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def refuse(code):
    def raise_it(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return raise_it


def test_replacing_creates_and_replaces_a_file(tmp_path):
    path = tmp_path / "state.json"
    for text in ("first", "second"):
        with replacing(path) as beside:
            assert beside.parent == tmp_path
            beside.write_text(text)
        assert read_folder(tmp_path) == {"state.json": text}


def test_replacing_shows_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "state.json"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"


def test_replacing_creates_and_replaces_a_folder_leaving_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "step-000001"
    for texts in ({"model": "1", "ema": "2"}, {"model": "3"}):
        with replacing(path) as beside:
            write_folder(beside, **texts)
        assert read_folder(path) == texts
        assert names(tmp_path) == ["step-000001"]


def test_replacing_a_link_to_a_folder_leaves_the_folder_alone(tmp_path):
    write_folder(tmp_path / "target", kept="yes")
    path = tmp_path / "link"
    path.symlink_to("target")
    with replacing(path) as beside:
        write_folder(beside, model="new")
    assert read_folder(path) == {"model": "new"}
    assert read_folder(tmp_path / "target") == {"kept": "yes"}
    assert names(tmp_path) == ["link", "target"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failing_block_leaves_nothing_new(tmp_path, exists, error):
    path = tmp_path / "mask.png"
    if exists:
        path.write_text("old")
    with pytest.raises(error), replacing(path) as beside:
        beside.write_text("half of i")
        raise error
    assert read_folder(tmp_path) == ({"mask.png": "old"} if exists else {})


@pytest.mark.parametrize("exists", [False, True])
def test_a_failing_block_removes_its_folder(tmp_path, exists):
    path = tmp_path / "step"
    if exists:
        write_folder(path, model="old", ema="old")
    with pytest.raises(ValueError), replacing(path) as beside:
        write_folder(beside, model="new")
        raise ValueError
    assert names(tmp_path) == (["step"] if exists else [])
    if exists:
        assert read_folder(path) == {"model": "old", "ema": "old"}


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert read_folder(tmp_path) == {"file": "old"}


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    path, flushed = tmp_path / "step", []
    real = files.fsync

    def note(what):
        flushed.append((what.name, path.exists()))
        real(what)

    monkeypatch.setattr(files, "fsync", note)
    with replacing(path) as beside:
        write_folder(beside, model="1", ema="2")
    *parts, folder, parent = flushed
    assert sorted(parts) == [("ema", False), ("model", False)]
    assert folder == (beside.name, False)
    assert parent == (tmp_path.name, True)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than"),
        (errno.EACCES, "permission"),
    ],
)
def test_a_refusal_while_flushing_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch, code, remedy):
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", refuse(code))
    with pytest.raises(InputError, match=remedy) as caught, replacing(path) as beside:
        beside.write_text("new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_folder(tmp_path) == {"weights.safetensors": "old"}


def interrupt(*_args, **_kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("failure", "seen"), [(refuse(errno.EROFS), InputError), (interrupt, KeyboardInterrupt)])
def test_a_failing_rename_keeps_the_old_folder_whole(tmp_path, monkeypatch, failure, seen):
    path = tmp_path / "step"
    write_folder(path, model="old", ema="old")
    monkeypatch.setattr(Path, "replace", failure)
    with pytest.raises(seen), replacing(path) as beside:
        write_folder(beside, model="new")
    assert read_folder(path) == {"model": "old", "ema": "old"}
    assert names(tmp_path) == ["step"]


def test_an_interrupted_removal_of_the_old_folder_never_leaves_a_part_of_it(tmp_path, monkeypatch):
    path = tmp_path / "step"
    write_folder(path, model="old", ema="old")

    def interrupted(folder, *_args, **_kwargs):
        next(Path(folder).iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupted)
        with replacing(path) as beside:
            write_folder(beside, model="new", ema="new")
    assert not path.exists() or read_folder(path) in ({"model": "old", "ema": "old"}, {"model": "new", "ema": "new"})


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    path = tmp_path / "mask.png"
    write_folder(path, note="mine")
    with pytest.raises(InputError, match=r"mask\.png: cannot be written: .*folder"), replacing(path) as beside:
        beside.write_text("new")
    assert read_folder(path) == {"note": "mine"}
    assert names(tmp_path) == ["mask.png"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    path = tmp_path / "step"
    path.write_text("mine")
    with pytest.raises(InputError, match="step: cannot be written"), replacing(path) as beside:
        write_folder(beside, model="new")
    assert read_folder(tmp_path) == {"step": "mine"}


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from medsegdiff.base.files import replacing
folder = Path(sys.argv[1])
with replacing(folder / "a.b"), replacing(folder / "folder") as beside:
    beside.mkdir()
    (beside / "model").write_text("half")
    with replacing(folder / "config.yaml") as beside:
        beside.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert len(names(tmp_path)) == 2
    (tmp_path / f".{'0a' * 16}.tmp").touch()  # what make_folder tries with
    mine = [".lock", ".notes.tmp", ".tmp", "config.yaml", f"x.{'0a' * 16}.tmp"]
    for name in mine:
        (tmp_path / name).touch()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == mine
    clear_leftovers(tmp_path / "missing")


def test_make_folder_does_not_mind_a_probe_cleared_away(tmp_path, monkeypatch):
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: touch(path) or clear_leftovers(path.parent))
    assert names(make_folder(tmp_path / "out")) == []


def test_make_folder_creates_parents_and_leaves_no_probe(tmp_path):
    path = make_folder(tmp_path / "a" / "b")
    assert path == make_folder(str(path)) == tmp_path / "a" / "b"
    assert names(path) == []


def test_make_folder_names_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: cannot be written: a file of this name is in the way"):
        make_folder(tmp_path / "out")
    with pytest.raises(InputError, match="a part of this path is a file"):
        make_folder(tmp_path / "out" / "run")


@pytest.mark.parametrize("call", ["mkdir", "touch"])
@pytest.mark.parametrize(("code", "remedy"), [(errno.EROFS, "read-only"), (errno.ENOSPC, "no space left")])
def test_make_folder_finds_out_that_it_cannot_write(tmp_path, monkeypatch, call, code, remedy):
    monkeypatch.setattr(Path, call, refuse(code))
    with pytest.raises(InputError, match=remedy):
        make_folder(tmp_path / "out")


def test_writing_passes_over_what_has_no_remedy(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), writing(tmp_path):
        refuse(errno.EIO)()
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError


def test_a_folder_is_held_by_one_process_and_free_when_that_is_killed(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from medsegdiff.base.files import exclusive\n"
        f"with exclusive(Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process works there"), exclusive(tmp_path):
            pass
        holder.kill()
        holder.wait()
    assert names(tmp_path) == [LOCK]
    with exclusive(tmp_path):
        assert names(tmp_path) == [LOCK]
    assert names(tmp_path) == []


def test_a_thread_keeps_others_of_its_process_out(tmp_path):
    """The system's lock is the whole process's, and gone with the first of its threads that closes the file."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)

    def refused():
        with pytest.raises(InputError, match="another process works there"), exclusive(link):
            pass
        return (tmp_path / LOCK).exists()

    def waits():
        with exclusive(link, patient=True):
            return (tmp_path / LOCK).exists()

    with futures.ThreadPoolExecutor(2) as pool:
        with exclusive(tmp_path):
            assert pool.submit(refused).result()
            patient = pool.submit(waits)
            with pytest.raises(futures.TimeoutError):
                patient.result(0.2)
        assert patient.result()


def test_a_lock_follows_no_link(tmp_path):
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link is in the way"), exclusive(tmp_path):
        pass
    assert names(tmp_path) == [LOCK]


def test_a_lock_whose_holder_is_just_leaving_is_taken_anew(tmp_path, monkeypatch):
    lock, calls = files.system.lock, []

    def leaves(handle, **options):  # between opening its file and locking it
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(handle)
        lock(handle, **options)

    monkeypatch.setattr(files.system, "lock", leaves)
    with exclusive(tmp_path):
        assert names(tmp_path) == [LOCK]
    assert len(calls) == 2


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(files.system, "lock", refuse(errno.ENOLCK))
    with exclusive(tmp_path):
        pass


def test_a_name_may_fill_what_a_file_system_allows(tmp_path):
    for name in ("n" * 255, "病" * 85):
        with replacing(tmp_path / name) as beside:
            beside.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.EINVAL if stat.S_ISDIR(os.fstat(handle).st_mode) else errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    files.fsync(tmp_path)
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="no"):
        files.fsync(tmp_path / "a")


_HOLDING = """
import sys, time
from medsegdiff.base.files import private_folder
with private_folder(sys.argv[1]) as folder:
    (folder / "upload.png").touch()
    print(folder, flush=True)
    time.sleep(100)
"""


def test_what_a_killed_process_left_is_cleared_and_what_is_in_use_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # so that it is asked for again
    (tmp_path / "mine-notes").mkdir()
    (tmp_path / "mine-link").symlink_to(tmp_path / "mine-notes")
    processes = [
        subprocess.Popen([sys.executable, "-c", _HOLDING, "mine-"], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    killed, alive = (Path(process.stdout.readline().strip()) for process in processes)
    processes[0].kill()
    processes[0].wait()
    assert (killed / "upload.png").exists()
    with files.private_folder("mine-") as folder:
        assert sorted(tmp_path.iterdir()) == sorted([alive, folder, tmp_path / "mine-link", tmp_path / "mine-notes"])
        assert (alive / "upload.png").exists()
    assert not folder.exists()
    processes[1].kill()
    processes[1].wait()


def test_a_folder_that_is_removed_meanwhile_is_named_itself(tmp_path, monkeypatch):
    """Not a temporary file in it, of which nobody knows."""
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(InputError, match=r"out/mask\.png: cannot be written: it, or the folder"),
        replacing(tmp_path / "out" / "mask.png") as beside,
    ):
        shutil.rmtree(tmp_path / "out")
        beside.write_text("x")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match=r"^\.: cannot be written: it, or the folder"):
        make_folder(Path())


def test_what_is_missing_elsewhere_is_not_blamed_on_what_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), writing(tmp_path / "mask.png"):
        (tmp_path / "input").read_bytes()
