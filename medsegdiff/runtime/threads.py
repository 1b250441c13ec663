"""How many threads libgomp starts, and how they wait."""

from __future__ import annotations

import os
import re

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError

_OPENMP = {  # of libgomp, which writes a line of its own for what it does not understand, and computes on
    "OMP_NUM_THREADS": r"[1-9]\d*(\s*,\s*[1-9]\d*)*",
    "OMP_WAIT_POLICY": "active|passive",
    "GOMP_SPINCOUNT": r"\d+\s*[kmgt]?|infinite|infinity",
}
_SPINS = "3000"  # 50 to 150 microseconds by processor, less than most loops take
_FEW_SPINS = "100"  # where cores are scarce: who waits had better make room
_BUSY = 1.5  # of the load average to the cores


def prepare() -> None:
    """Tell libgomp, which reads it when Jittor loads it, how its threads wait and how many there are.

    At the end of each loop a thread waits for the others. By itself it first repeats 300,000 pauses, which on some
    processors is ten milliseconds: where other work has the other thread's core, it computes nothing for that long, in
    each loop. On a machine that is busy as this starts, it waits still less. What the user chose stays.
    """
    for name, pattern in _OPENMP.items():
        value = os.environ.get(name, "").strip()
        if not value:
            os.environ.pop(name, None)
        elif not re.fullmatch(pattern, value, re.IGNORECASE):
            raise InputError(f"{name}={value}: is not what OpenMP knows, which would ignore it; correct or unset it")
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        busy = os.getloadavg()[0] > _BUSY * machine.usable_cores()
        os.environ["GOMP_SPINCOUNT"] = _FEW_SPINS if busy else _SPINS
    if machine.usable_cores() < machine.allowed_cores():  # which libgomp counts; a quota it does not know
        os.environ.setdefault("OMP_NUM_THREADS", str(machine.usable_cores()))
