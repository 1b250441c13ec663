"""How many threads libgomp starts, and how they wait."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError

_SPINS = "3000"  # 50 to 150 microseconds by processor, less than most loops take
_FEW_SPINS = "100"  # where cores are scarce: who waits had better make room
_BUSY = 1.5  # of the load average to the cores
_MOST = 4096  # threads; libgomp crashes or hangs where it cannot have as many as it is told


def prepare() -> None:
    """Tell libgomp, which reads it when it is loaded, how its threads wait and how many there are, and load it.

    At the end of each loop a thread waits for the others. By itself it first repeats 300,000 pauses, which on some
    processors is ten milliseconds: where other work has the other thread's core, it computes nothing for that long, in
    each loop. On a machine that is busy as this starts, it waits still less. What the user chose stays.

    Raises:
        InputError: the user chose what libgomp does not understand, of which it would say so in a line of its own, and
            go on; or more threads than any machine has cores.
    """
    for name in [name for name, value in os.environ.items() if re.match("G?OMP_", name) and not value.strip()]:
        del os.environ[name]
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        busy = os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)  # both of the whole machine
        os.environ["GOMP_SPINCOUNT"] = _FEW_SPINS if busy else _SPINS
    if machine.usable_cores() < machine.allowed_cores():  # which libgomp counts; a quota it does not know
        os.environ.setdefault("OMP_NUM_THREADS", str(machine.usable_cores()))
    said = _load()
    if refused := re.search(r"^libgomp: .*\b(G?OMP_\w+)", said, re.MULTILINE):
        given = f"{refused[1]}={os.environ.get(refused[1])}"
        raise InputError(f"{given}: is not a value that OpenMP knows, and would be ignored; correct or unset it")
    with contextlib.suppress(OSError):  # where it is missing
        wanted = ctypes.CDLL("libgomp.so.1").omp_get_max_threads()
        if not 0 < wanted <= _MOST:
            given = f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}"
            raise InputError(f"{given}: must be at most {_MOST}; give the number of cores, or unset it")
    if said:  # as OMP_DISPLAY_ENV wants it
        os.write(2, said.encode())


def _load() -> str:
    """Load libgomp, which Jittor will use, unless it is there already; returns what it says on standard error."""
    with contextlib.ExitStack() as stack:
        begin, end = os.pipe()
        said = stack.enter_context(os.fdopen(begin, encoding="utf-8", errors="replace"))
        with os.fdopen(end, "wb"), contextlib.suppress(OSError):  # where it is missing, the compiler says so later
            usual = os.dup(2)
            stack.callback(os.close, usual)
            os.dup2(end, 2)
            try:
                ctypes.CDLL("libgomp.so.1")
            finally:
                os.dup2(usual, 2)
        return said.read()
