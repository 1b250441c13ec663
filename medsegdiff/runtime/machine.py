"""The processor, as the operating system describes it."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

_CPUINFO = Path("/proc/cpuinfo")


class Cpu(NamedTuple):
    """A processor."""

    model: str
    """Its name, or that of its architecture."""
    flags: frozenset[str]
    """What it can do, in the kernel's words such as "avx2" and "avx512_bf16"; empty where that is unknown."""


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


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
