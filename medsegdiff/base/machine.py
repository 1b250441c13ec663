"""The operating system, the processor, and other programs."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medsegdiff.base import system
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
    if where := elsewhere():
        raise InputError(
            f"{platform.system()} on {platform.machine()}: Jittor runs on Linux on x86-64; use {where}, or to segment "
            "ONNX Runtime (pip install 'medsegdiff-jittor[onnx]')"
        )


def elsewhere() -> str:
    """Where to train if Jittor does not run on this system and processor; empty if it does."""
    system = platform.system()
    if (system, platform.machine()) == ("Linux", "x86_64"):
        return ""
    return "WSL 2" if system == "Windows" else "a machine or container with Linux on x86-64"


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


def home() -> Path:
    """The user's home folder.

    Raises:
        InputError: `HOME` is not set, and the system knows of none.
    """
    try:
        return Path(os.environ.get("HOME") or system.account_home()).absolute()
    except KeyError:  # as in a container that runs under a number without a name
        raise InputError("HOME: is not set, and this user has no home folder; set HOME to a folder of yours") from None


def completed(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """What a command printed, and its exit code: 127, as shells say, where it cannot run, or not within the time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 127, "", "")


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
    found = _limits("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min((one[0] / one[1] for one in found if len(one) == 2 and min(one) > 0), default=math.inf)  # -1: none


def memory() -> float:
    """How many bytes this process may use: the machine's, or the limit of its control groups where that is less."""
    limits = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    limits += [found[0] for found in _limits("memory", ("memory.max",), ("memory.limit_in_bytes",)) if len(found) == 1]
    return min(limits)


def _limits(controller: str, *files: tuple[str, ...]) -> Iterator[list[float]]:
    """The numbers in `files`, those of version 2 or of version 1, of this process's control group and all above it."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        group = _ALL_GROUPS / (controller if controllers else "") / path.lstrip("/")
        # Every group above has its own limit. In a container the path may be the host's: then only the top is there.
        for folder in (group, *group.parents):
            for names in files:
                with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                    yield [float(number) for name in names for number in (folder / name).read_text().split()]
