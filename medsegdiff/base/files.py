"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from medsegdiff.base import system
from medsegdiff.base.errors import InputError

REMEDIES = {
    errno.ENOSPC: "no space left on the disk; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than the file system or a limit allows; see `ulimit -f`",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EISDIR: "a folder of this name is in the way; choose another folder",
    errno.ELOOP: "a link is in the way; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EINVAL: "its file system takes no such name; choose another",
    errno.EEXIST: "a file of this name is in the way; choose another folder",
    errno.ENOENT: "it, or the folder that it is in, was removed meanwhile; choose another folder",
}
LOCK = ".medsegdiff.lock"
"""There while a process works in a folder."""
_threads: dict[tuple[int, int], threading.Lock] = {}
"""For folders, by device and number: the system's lock is the same for all threads of a process."""
_LEFTOVER = re.compile(r"\.(.+\.)?[0-9a-f]{32}\.tmp")


@contextlib.contextmanager
def writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn the operating system's refusals while writing `path` into an `InputError`.

    Args:
        path: what is written
        remedy: what to do, where that is not to choose another folder
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REMEDIES or (error.errno == errno.ENOENT and _has_a_folder(path)):
            raise
        reason, _, usual = REMEDIES[error.errno].partition("; ")
        raise InputError(f"{path}: cannot be written: {reason}; {remedy or usual}") from error


def _has_a_folder(path: Path) -> bool:
    """Whether a name is missing although the folder of `path` still exists."""
    try:
        return path.absolute().parent.is_dir()
    except FileNotFoundError:  # the working directory
        return False


def make_folder(path: Path, remedy: str = "") -> Path:
    """Create the folder `path` with its parents and check that it can be written to; `remedy` as for `writing`.

    Raises:
        InputError: it cannot be created or is not writable.
    """
    path = Path(path)
    with writing(path, remedy):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{uuid.uuid4().hex}.tmp"
        probe.touch()
        probe.unlink(missing_ok=True)  # who works there may have cleared it away
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """The handle of a file that is there to be locked (`system.lock`), and is made if need be.

    Raises:
        InputError: it cannot be written to.
    """
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | system.NO_LINK | system.NO_WAITING, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def held(path: Path, lock: Callable[[int], None]) -> Iterator[None]:
    """Hold the lock file `path`, which is removed at the end; `lock` locks it by its handle, or raises.

    Raises:
        InputError: it cannot be written to.
    """
    while True:
        with opened(path) as handle:
            lock(handle)
            if os.fstat(handle).st_nlink:  # else its holder removed it after it was opened here
                try:
                    yield
                    return
                finally:
                    with contextlib.suppress(OSError):  # Windows keeps what is open
                        path.unlink()


@contextlib.contextmanager
def exclusive(folder: Path, patient: bool = False) -> Iterator[None]:
    """Hold `folder` for this thread alone, by a lock on the file `LOCK` in it, which is removed at the end.

    The system frees it when the process ends, however it ends; the file that a killed one left goes with the next.
    Who is `patient` waits for other threads of this process.

    Raises:
        InputError: another process or thread holds it, or it cannot be written to.
    """
    busy = InputError(f"{folder}: another process works there; wait for its end or choose another")

    def lock(handle: int) -> None:
        try:
            system.lock(handle, wait=False, of_process=True)
        except BlockingIOError:
            raise busy from None
        except OSError:  # a network file system without locks: nothing can be checked
            pass

    with writing(folder):
        found = folder.stat()
    ours = _threads.setdefault((found.st_dev, found.st_ino), threading.Lock())
    if not ours.acquire(blocking=patient):
        raise busy
    try:
        with held(folder / LOCK, lock):
            yield
    finally:
        ours.release()


@contextlib.contextmanager
def private_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that is removed at the end, with those of this `prefix` whose processes were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(InputError, OSError):  # somebody's at work, another user's, or just gone
            if not path.is_symlink() and system.is_ours(path) and (path / LOCK).is_file():
                with exclusive(path):
                    shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=prefix) as name, exclusive(Path(name)):
        yield Path(name)


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk; not where there is nothing to flush.

    A file system may have nothing of the kind, nor has Windows of folders.
    """
    if system.WINDOWS and path.is_dir():
        return
    handle = os.open(path, system.TO_FLUSH)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; rename it to `path` when the block ends well.

    The block may create a file or a folder there. It is flushed before the rename, so after a crash
    `path` is the old version or the new one (or absent, where a folder replaces a folder), never a
    part of one. If the block fails, what it wrote is removed.

    Raises:
        InputError: the disk is full, read-only or forbidden.
    """
    path = Path(path)
    # Of a long name a part: with what is added, a file system's 255 bytes must hold it.
    beside, aside = (path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.tmp") for _ in range(2))
    try:
        with writing(path):
            yield beside
            for part in [*beside.rglob("*"), beside] if beside.is_dir() else [beside]:
                fsync(part)
            if beside.is_dir() and path.is_dir():  # a folder cannot be renamed onto another
                path.rename(aside)
            system.replace(beside, path)
            fsync(path.parent)
    finally:
        if os.path.lexists(aside) and not os.path.lexists(path):  # stopped between the two renames
            aside.rename(path)
        for leftover in (beside, aside):
            remove(leftover)


def size(path: Path) -> int:
    """The bytes of a file; 0 if it is not a file, or was just removed."""
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left of `replacing` in `folder`, which nobody else may be using.

    Not in folders below it. What cannot be removed stays.
    """
    for path in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that it holds; it may be absent."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
