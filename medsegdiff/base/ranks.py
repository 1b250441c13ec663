"""Processes that Open MPI's `mpirun` started together; one that was started alone is the trivial case.

Process 0 leads: it alone prints and writes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from medsegdiff.base import machine, streams
from medsegdiff.base.errors import InputError

_GRACE = 3  # seconds


def started_together() -> bool:
    """Whether `mpirun` of Open MPI started this process."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def count() -> int:
    """How many processes work together."""
    return number("OMPI_COMM_WORLD_SIZE", 1)


def rank() -> int:
    """This process's number, from 0."""
    return number("OMPI_COMM_WORLD_RANK", 0)


def number(name: str, alone: int) -> int:
    """What the environment variable `name` says, or `alone` where it is not set to a number."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else alone


def _check() -> None:
    """Refuse variables that `mpirun` never sets so, but a shell's start-up file may.

    Raises:
        InputError: one of its variables is no number, or makes no sense beside the other.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        text = os.environ.get(name)
        if text is not None and not (text.isdecimal() and len(text) < 7):
            raise InputError(f"{name}={text[:40]}: is not a number; only mpirun should set it: unset {name}")
    if not rank() < count():
        raise InputError(f"OMPI_COMM_WORLD_RANK={rank()}: there are {count()} processes; only mpirun should set it")


def fair_threads() -> int:
    """How many threads this process may use so that all those on this machine together use each core once.

    Unless `mpirun` bound it to fewer cores, it has those of its parent, `mpirun` itself, in common with its siblings.
    """
    siblings = number("OMPI_COMM_WORLD_LOCAL_SIZE", 1) or 1
    ours, all_cores = (len(os.sched_getaffinity(process)) for process in (0, os.getppid()))
    return max(1, min(ours, int(min(all_cores, machine.quota()) // siblings)))


@contextlib.contextmanager
def only_the_leader_speaks() -> Iterator[None]:
    """What the other processes print within the block goes nowhere.

    Raises:
        InputError: the environment's account of them makes no sense.
    """
    _check()
    with contextlib.ExitStack() as stack:
        if rank():
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def fail(code: int, complaint: str) -> int:
    """Print `complaint` and return the exit code; of several processes, end all.

    Where all fail alike, the leader speaks for them: the others wait a moment before they do.
    """
    if rank():
        time.sleep(_GRACE)
    with contextlib.suppress(OSError):  # nobody reads
        if complaint:
            print(complaint, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        streams.refusal(stream)
    if count() > 1:
        # A usual exit would wait for the others, which wait for this one; mpirun ends them when it sees the code.
        os._exit(code)
    return code
