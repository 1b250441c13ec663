"""What operating systems offer differently: Linux and macOS on one side, Windows on the other.

Where another module needs to know, it asks here; only what serves Jittor, which is for Linux, takes Linux for granted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

WINDOWS = sys.platform == "win32"

NO_WAITING: int = getattr(os, "O_NONBLOCK", 0)
"""To open a pipe without waiting for its other end; Windows has none among its files."""
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""To open a file, but not by a link; Windows cannot ask for that."""
AS_IT_IS: int = getattr(os, "O_BINARY", 0)
"""To write bytes as they are: Windows would make two of the end of each line."""
TO_FLUSH = os.O_RDWR if WINDOWS else os.O_RDONLY
"""To open a file for `os.fsync`: Windows flushes what may be written alone."""
STOPPING: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""Signals that ask a command to stop: Ctrl-C, the system, a terminal that is closed, and Windows' Ctrl-Break."""
SIGPIPE = 13
"""The number that a shell knows as "nobody reads the output"."""

_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_PATIENCE = 1.0  # seconds


def names_a_file(name: str) -> bool:
    """Whether a file may have this name: Windows keeps some characters and names, with any suffix, for itself.

    https://learn.microsoft.com/windows/win32/fileio/naming-a-file
    """
    return not WINDOWS or not (re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name) or _DEVICES.fullmatch(name))


def replace(source: Path, target: Path) -> None:
    """Rename a file, to a name that may be another's, of which nothing is left, or a folder to a new name.

    Windows refuses while any program has either open, as virus scanners do for a moment: that is waited for.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
        time.sleep(0.02)


def lock(handle: int, shared: bool = False, wait: bool = True, of_process: bool = False) -> None:
    """Lock an open file for as long as it stays open; what was locked by `handle` before is let go.

    Args:
        handle: of the file, open for reading and writing
        shared: together with others that do so; Windows locks for one alone, so there they take turns
        wait: until nobody else holds it
        of_process: children of this process that survive it do not keep the lock, as forked ones else do

    Raises:
        BlockingIOError: somebody else holds it, and there is no waiting.
        OSError: the file system has no locks.
    """
    try:
        _hold(handle, shared, wait, of_process)
    except PermissionError as error:  # as Windows says it, and some other systems
        raise BlockingIOError(*error.args[:2]) from None


if sys.platform == "win32":
    import msvcrt

    def _hold(handle: int, shared: bool, wait: bool, of_process: bool) -> None:
        with suppress(OSError):  # else this lock would wait for the one that `handle` has
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        while True:
            try:
                return msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not wait:
                    raise
            time.sleep(0.05)

    def account_home() -> str:
        """The home folder of this user's account; a KeyError where the system knows of none."""
        return os.environ["USERPROFILE"]

    def is_ours(path: Path) -> bool:
        """Whether `path` belongs to this user: there, temporary folders are each user's own."""
        return True

else:
    import fcntl

    def _hold(handle: int, shared: bool, wait: bool, of_process: bool) -> None:
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        (fcntl.lockf if of_process else fcntl.flock)(handle, how)

    def account_home() -> str:
        """The home folder of this user's account; a KeyError where the system knows of none."""
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir

    def is_ours(path: Path) -> bool:
        """Whether `path`, itself if it is a link, belongs to this user."""
        return path.lstat().st_uid == os.getuid()
