import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.runtime import cache

LIBRARY = __import__("_ctypes").__file__  # an ELF file


@pytest.fixture
def compiled(tmp_path):
    """A cache with a core, a kernel and what the core was linked of."""
    folder = tmp_path / "cache"
    for name in ("jittor_core.x.so", "jit/kernel.so", "obj_files/part.o"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(LIBRARY, folder / name)
    return folder


def names(folder):
    return sorted(path.name for path in folder.rglob("*.*o"))


@pytest.mark.parametrize("size", [0, 30, 4096])
def test_compiled_files_that_are_cut_short_are_removed(compiled, size):
    cache.check(compiled)
    assert names(compiled) == ["jittor_core.x.so", "kernel.so", "part.o"]
    os.truncate(compiled / "jit/kernel.so", size)
    os.truncate(compiled / "obj_files/part.o", size)
    cache.check(compiled)
    assert names(compiled) == ["jittor_core.x.so", "part.o"]  # of the latter nothing is made any more
    os.truncate(compiled / "jittor_core.x.so", size)
    cache.check(compiled)
    cache.check(compiled)
    assert names(compiled) == []


def test_what_another_process_is_compiling_is_left_alone(compiled, capsys):
    os.truncate(compiled / "jit/kernel.so", 4096)
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    lock = str(compiled.parent / "jittor.lock")
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        cache.check(compiled)
        other.communicate(b"\n")
    assert "kernel.so" in names(compiled)
    assert capsys.readouterr().err == f"another process compiles into {compiled}; this one waits for it where it must\n"


@pytest.fixture
def disks(monkeypatch):
    """Free bytes by folder; of others plenty."""
    free = {}
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(str(path), 1 << 40)))
    return free


def test_compilers_do_without_a_full_folder_for_temporary_files(compiled, monkeypatch, disks):
    monkeypatch.setenv("TMPDIR", "as it is")
    cache.check(compiled)
    assert os.environ["TMPDIR"] == "as it is"
    disks[tempfile.gettempdir()] = 1 << 20
    cache.check(compiled)
    assert os.environ["TMPDIR"] == str(compiled / "tmp")
    assert (compiled / "tmp").is_dir()


def test_a_first_start_on_a_full_disk_is_refused_before_compilers_complain(compiled, disks):
    disks[str(compiled)] = 1 << 20
    cache.check(compiled)  # there is nothing to compile any more
    (compiled / "jittor_core.x.so").unlink()
    with pytest.raises(InputError, match="cache: cannot be written: no space left on the disk; free some, or set JITT"):
        cache.check(compiled)


def test_a_folder_that_cannot_be_written_is_told_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    for check in (cache.check_home, cache.check):
        with pytest.raises(InputError, match=r"file.*: cannot be written: .*; set JITTOR_HOME to another folder"):
            check(tmp_path / "file" / "cache")


def test_a_file_system_that_runs_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(InputError, match=r"runs no programs \(noexec\).*set JITTOR_HOME"):
        cache.check_home(tmp_path)


def test_a_file_system_without_locks_is_used_without(compiled, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("disable_lock", "0")
    monkeypatch.setattr(fcntl, "flock", refuse)
    os.truncate(compiled / "jit/kernel.so", 4096)
    cache.check_home(compiled.parent)
    assert os.environ["disable_lock"] == "1"
    cache.check(compiled)
    assert "kernel.so" not in names(compiled)


def test_why_a_compiler_failed(tmp_path, monkeypatch):
    failed = RuntimeError("Wrong inputs ... Run cmd failed: g++ ...")
    monkeypatch.setitem(sys.modules, "jittor_utils", SimpleNamespace(cache_path=str(tmp_path)))
    assert cache.compiler_failure(RuntimeError("something else")) == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    assert "if it was killed, memory was short" in cache.compiler_failure(failed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert f"{tmp_path}: cannot be written: no space left" in cache.compiler_failure(failed)
    monkeypatch.setenv("TMPDIR", "/full")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0 if path == "/full" else 2**30))
    assert cache.compiler_failure(failed) == (
        "/full: cannot be written: no space left on the disk; free some, or set TMPDIR to another folder"
    )
