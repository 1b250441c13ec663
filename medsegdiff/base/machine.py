"""The operating system and the processor."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

from medsegdiff.base.errors import InputError

_CPUINFO = Path("/proc/cpuinfo")
_OWN_GROUPS, _ALL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Cpu(NamedTuple):
    """A processor."""

    model: str
    """Its name, or that of its architecture."""
    flags: frozenset[str]
    """What it can do, in the kernel's words such as "avx2" and "avx512_bf16"; empty where that is unknown."""


def check_system() -> None:
    """Refuse where Jittor has never run with this package: its oneDNN comes for Linux on x86-64 alone.

    Raises:
        InputError: this is another system or processor.
    """
    system, processor = platform.system(), platform.machine()
    if (system, processor) != ("Linux", "x86_64"):
        where = "WSL 2" if system == "Windows" else "a machine or container with it"
        raise InputError(
            f"{system} on {processor}: Jittor runs on Linux on x86-64; use {where}, or to segment ONNX Runtime "
            "(pip install onnx onnxruntime)"
        )


@functools.cache
def cpu() -> Cpu:
    """The processor of this machine."""
    try:
        return describe(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return describe("")


def describe(cpuinfo: str) -> Cpu:
    """The processor that the text of `/proc/cpuinfo` tells of."""
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return Cpu(model[1].strip() if model else platform.machine(), frozenset(flags[1].split() if flags else ()))


def allowed_cores() -> int:
    """How many cores the threads of this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """How many cores this process may use: a container's quota of computing time may be less than its cores."""
    return max(1, math.ceil(min(quota(), allowed_cores())))


def quota() -> float:
    """How many cores' time the control groups of this process, of version 1 or 2, leave it; infinity for no limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files,
    https://docs.kernel.org/scheduler/sched-bwc.html
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = _ALL_GROUPS / ("cpu" if controllers else "") / path.lstrip("/")
        # Every group above has its own limit. In a container the path may be the host's: then only the top is there.
        limits += [_limit(folder) for folder in (group, *group.parents)]
    return min(limits)


def _limit(group: Path) -> float:
    """The limit that the files of one control group set, infinity where there is none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            time, period = map(float, " ".join((group / name).read_text() for name in names).split())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if time > 0 and period > 0:  # -1: none
            return time / period
    return math.inf
