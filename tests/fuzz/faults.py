"""Disks that become full, and processes that are killed, at the n-th thing that is done to a file."""

import builtins
import errno
import io
import os
import signal

CALLS = ("open", "mkdir", "replace", "rename", "unlink", "fsync", "write")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def install(patch, moment, fault):
    """Have `fault` happen, and from then on each time, at the `moment`-th call that changes files.

    A full disk still lets files be removed and renamed. Returns the list of the calls seen.
    """
    seen = []

    def failing(name, function):
        def call(*given, **options):
            reads = name == "open" and len(given) > 1 and isinstance(given[1], int) and not given[1] & WRITES
            if reads or (fault is full and name in ("unlink", "replace", "rename", "fsync")):
                return function(*given, **options)
            seen.append(name)
            if len(seen) >= moment:
                fault()
            return function(*given, **options)

        return call

    def opening(path, mode="r", *given, **options):
        if set(mode) & set("wax+") and not str(path).startswith(("/dev/", "/proc/")):
            seen.append("open")
            if len(seen) >= moment:
                fault()
        return real(path, mode, *given, **options)

    real = builtins.open
    for name in CALLS:
        patch.setattr(os, name, failing(name, getattr(os, name)))
    patch.setattr(builtins, "open", opening)
    patch.setattr(io, "open", opening)
    return seen
