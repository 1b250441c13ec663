"""Windows' Python, as far as that can be had on Linux: what this package would meet there.

    python -X warn_default_encoding -m tests.windows sample --images photo.jpg

* For this package's modules, and for them alone, what Windows lacks is absent: modules, functions, signals, flags,
  `/proc`, Jittor (https://docs.python.org/3/library, "Availability"). Other packages are made for Windows by others.
* For everybody, files are as stubborn as there: one that is open or mapped cannot be removed, renamed or replaced, a
  folder not be opened, nor replaced; what is open for reading alone cannot be flushed; some names are refused.
* A text file opened without an encoding is an error, as its encoding would be another there.

Paths are still Linux's: letters of drives and backslashes are not emulated.
"""

import builtins
import contextlib
import errno
import fcntl
import importlib.metadata
import io
import os
import pathlib
import platform
import re
import shutil
import signal
import struct
import sys
import types
import warnings
from pathlib import Path

MODULES = frozenset("fcntl grp posix pty pwd readline resource syslog termios tty curses crypt nis spwd".split())
"""What cannot be imported."""
OS = frozenset(
    """O_NONBLOCK O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_SYNC O_DSYNC O_ASYNC O_NOCTTY O_TMPFILE O_PATH O_DIRECT O_NDELAY
    F_LOCK F_TLOCK F_ULOCK WNOHANG WUNTRACED WEXITSTATUS WIFEXITED WIFSIGNALED WTERMSIG EX_OK ST_NOEXEC ST_RDONLY
    fork forkpty register_at_fork posix_spawn posix_spawnp wait wait3 wait4 waitid nice getpriority setpriority
    getuid geteuid getgid getegid getresuid getgroups setuid setgid setsid setpgid getpgid getpgrp getsid killpg
    sched_getaffinity sched_setaffinity sched_yield getloadavg sysconf confstr pathconf uname ctermid openpty
    statvfs fstatvfs mkfifo mknod chown fchown lchown chroot fchmod fchdir lockf pread pwrite preadv pwritev readv
    writev posix_fallocate posix_fadvise sendfile sync fdatasync copy_file_range memfd_create eventfd splice major minor
    getxattr setxattr listxattr removexattr tcgetpgrp tcsetpgrp pidfd_open fwalk initgroups""".split()
)
SIGNALS = frozenset(
    """SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGBUS
    SIGIO SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_UNBLOCK SIG_SETMASK alarm pause setitimer getitimer pthread_kill
    pthread_sigmask sigpending sigwait sigwaitinfo sigtimedwait siginterrupt""".split()
)
_TEXT, _BINARY = set(), 1 << 40  # handles of files whose ends of lines are made two bytes, and the flag against it
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
_real = types.SimpleNamespace(
    **{name: getattr(os, name) for name in "open close fsync mkdir rename replace rmdir unlink write".split()},
    io=io.open,
    load=builtins.__import__,
)


class _Part(types.ModuleType):
    """A module without some of its names, and with others in place of its own."""

    def __init__(self, whole, lacking=(), **instead):
        super().__init__(whole.__name__)
        self.__dict__.update(_whole=whole, _lacking=lacking, **instead)

    def __getattr__(self, name):
        if name in self._lacking:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._whole, name)

    def __setattr__(self, name, value):
        setattr(self._whole, name, value)


def _locking(handle, mode, count):
    """`msvcrt.locking`: of one alone, whoever it is, even in this process by another handle."""
    kind = fcntl.F_UNLCK if mode == 0 else fcntl.F_WRLCK
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, count, 0))
    except OSError:
        raise OSError(errno.EACCES, "Permission denied") from None


def _open(path, flags, mode=0o777, **rest):
    if _path(path).is_dir():
        raise OSError(errno.EACCES, "Permission denied", path)
    _check_name(path)
    handle = _real.open(path, flags & ~_BINARY, mode, **rest)
    (_TEXT.discard if flags & _BINARY else _TEXT.add)(handle)
    return handle


def _write(handle, data):
    if handle in _TEXT:
        data = bytes(data).replace(b"\n", b"\r\n")
    return _real.write(handle, data)


def _fsync(handle):
    if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    _real.fsync(handle)


def _open_file(file, mode="r", *rest, **options):
    if not isinstance(file, int):
        path = os.fsdecode(file)
        if path.startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if _path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if not mode.startswith("r"):
            _check_name(path)
    return _real.io(file, mode, *rest, **options)


def _path(name):
    return Path(os.fsdecode(name))


def _check_name(path):
    if _FORBIDDEN.search(_path(path).name):
        raise OSError(errno.EINVAL, "Invalid argument", path)


def _check_free(*paths):
    """Refuse what is open or mapped in this process, or holds such a file."""
    handles = list(Path("/proc/self/fd").iterdir())
    with _real.io("/proc/self/maps", encoding="utf-8") as maps:
        used = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps}
    for handle in handles:
        with contextlib.suppress(OSError):  # of the list itself
            used.add(str(handle.readlink()))
    for path in map(os.path.realpath, map(os.fsdecode, paths)):
        if any(one == path or one.startswith(f"{path}/") for one in used):
            raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", path)


def _unlink(path, **rest):
    _check_free(path)
    _real.unlink(path, **rest)


def _mkdir(path, *rest, **options):
    _check_name(path)
    _real.mkdir(path, *rest, **options)


def _rename(source, target, **rest):
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "File exists", source, None, target)
    _replace(source, target, **rest)


def _replace(source, target, **rest):
    _check_name(target)
    _check_free(source, target)
    if _path(target).is_dir():
        raise PermissionError(errno.EACCES, "Access is denied", source, None, target)
    _real.replace(source, target, **rest)


def _load(name, globals=None, locals=None, fromlist=(), level=0):
    caller = (globals or {}).get("__name__") or ""
    if level == 0 and caller.partition(".")[0] == "medsegdiff":
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in _PARTS:
            return _PARTS[name]
    return _real.load(name, globals, locals, fromlist, level)


_PARTS = {
    "os": _Part(os, OS, name="nt", O_BINARY=_BINARY, open=_open, write=_write, fsync=_fsync),
    "platform": _Part(platform, system=lambda: "Windows", machine=lambda: "AMD64"),
    "signal": _Part(signal, SIGNALS, SIGBREAK=21),
    "sys": _Part(sys, ("getwindowsversion",), platform="win32"),
    "msvcrt": types.SimpleNamespace(LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, locking=_locking),
}


def begin():
    """Be Windows from now on, before anything of this package is imported."""
    builtins.__import__ = _load
    builtins.open = io.open = _open_file
    os.unlink = os.remove = _unlink
    os.mkdir, os.rename, os.replace = _mkdir, _rename, _replace
    if sys.version_info < (3, 11):  # there paths keep these functions for themselves
        kept = pathlib._NormalAccessor
        kept.unlink, kept.mkdir, kept.rename, kept.replace = map(staticmethod, (_unlink, _mkdir, _rename, _replace))
        if sys.version_info >= (3, 10):
            kept.open = staticmethod(_open_file)
    shutil._use_fd_functions = False
    sys.modules.update(dict.fromkeys(("jittor", "jittor_utils", "torch")))
    version = importlib.metadata.version

    def installed(name):
        if name in ("jittor", "onednn-cpu-gomp", "onednn-devel-cpu-gomp"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    importlib.metadata.version = installed
    home = os.environ.pop("HOME", "")
    os.environ.setdefault("USERPROFILE", home)
    if sys.version_info >= (3, 10):
        warnings.filterwarnings("error", category=builtins.EncodingWarning, module="medsegdiff")


if __name__ == "__main__":
    begin()
    from medsegdiff.__main__ import main

    raise SystemExit(main())
