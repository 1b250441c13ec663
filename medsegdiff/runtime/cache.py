"""Jittor's cache of compiled code, examined before Jittor is imported, which may crash over what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from medsegdiff.base import screen, system
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, writing

ELSEWHERE = "set JITTOR_HOME to another folder of yours"
_LEAST_FREE = 16 << 20  # bytes, below which compilers fail
_CORE_AND_KERNELS = 1 << 28  # bytes that a first start compiles
# Of 64 bits: magic number, where the table of sections begins, the size and number of its entries.
_ELF_HEADER = struct.Struct("<4s36xQ10xHH2x")


def check_home(folder: Path) -> None:
    """Make the folder of all of Jittor's caches, and have Jittor do without locks where its file system has none.

    Raises:
        InputError: it cannot be made, or no program may be run from its file system.
    """
    with writing(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise InputError(f"{folder}: its file system runs no programs (noexec), as Jittor's kernels are; {ELSEWHERE}")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            system.lock(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            os.environ["disable_lock"] = "1"


def check(cache: Path) -> None:
    """Make the cache's folder fit for Jittor's import, or say why it is not.

    Compiled files that are cut short, of which the system would end the process, are removed: they are made anew. Where
    the folder for temporary files is nearly full, compilers have theirs in the cache.

    Raises:
        InputError: it cannot be written, or lacks the room for a first start.
    """
    make_folder(cache, ELSEWHERE)
    if shutil.disk_usage(cache).free < _CORE_AND_KERNELS and not any(cache.glob("jittor_core*.so")):
        raise InputError(_full(cache, ELSEWHERE))
    if shutil.disk_usage(tempfile.gettempdir()).free < _CORE_AND_KERNELS:
        (cache / "tmp").mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(cache / "tmp")
    with (cache.parent / "jittor.lock").open("a") as lock:
        try:
            system.lock(lock.fileno(), wait=False, of_process=True)  # as kernels are compiled under
            system.lock(lock.fileno(), wait=False)  # as the core is
        except BlockingIOError:  # who compiles there has looked itself
            screen.note(f"another process compiles into {cache}; this one waits for it where it must")
            return
        except OSError:
            if os.environ.get("disable_lock") != "1":
                raise
        remove_broken(cache)


def compiler_failure(error: Exception) -> str:
    """Why a compiler failed that Jittor had called, as far as `error` tells of one; else nothing."""
    if "Run cmd failed" not in str(error) or "jittor_utils" not in sys.modules:
        return ""
    temporary = os.environ.get("TMPDIR") or "/tmp"  # which compilers use
    elsewhere = {sys.modules["jittor_utils"].cache_path: ELSEWHERE, temporary: "set TMPDIR to another folder"}
    for folder, remedy in elsewhere.items():
        if shutil.disk_usage(folder).free < _LEAST_FREE:
            return _full(folder, remedy)
    return "a compiler failed, see its words above; if it was killed, memory was short: free some, and repeat this"


def _full(folder: str | Path, remedy: str) -> str:
    return f"{folder}: cannot be written: no space left on the disk; free some, or {remedy}"


def remove_broken(cache: Path) -> None:
    """Remove the compiled files below `cache` that are cut short."""
    kinds = (".so",) if any(cache.glob("jittor_core*.so")) else (".so", ".o")
    for folder, _, names in os.walk(cache):
        for path in (Path(folder, name) for name in names if name.endswith(kinds)):
            with contextlib.suppress(OSError):  # another user's
                if not _is_whole(path):
                    path.unlink()


def _is_whole(path: Path) -> bool:
    """Whether an ELF file reaches to the end of its table of sections, which compilers write last.

    https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
    """
    with path.open("rb") as file:
        header = file.read(_ELF_HEADER.size)
    if len(header) < _ELF_HEADER.size:
        return False
    magic, table, size, number = _ELF_HEADER.unpack(header)
    return magic == b"\x7fELF" and table + size * number <= path.stat().st_size
