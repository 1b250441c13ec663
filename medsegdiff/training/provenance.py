"""Where a training comes from: versions, code, machine, command, data."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np

import medsegdiff
from medsegdiff.base import machine, ranks
from medsegdiff.data.loader import Dataset
from medsegdiff.kernels.operations import device
from medsegdiff.runtime import toolchain
from medsegdiff.runtime.backend import jt


def provenance(dataset: Dataset, held_out: Optional[Dataset] = None, precision: str = "fp32") -> dict[str, Any]:
    """What a later reader must know about this start of a training, ready for JSON."""
    return {
        "versions": {
            "medsegdiff": medsegdiff.__version__,
            "python": platform.python_version(),
            "jittor": jt.__version__,
            "numpy": np.__version__,
            "onednn": toolchain.package_version(toolchain.ONEDNN_WHEELS[0]),
        },
        "code": commit(Path(medsegdiff.__file__).resolve().parents[1]),
        "machine": _machine(),
        "precision": precision,
        "command": shlex.join(sys.argv),
        "process": os.getpid(),
        "processes": ranks.count(),
        "dataset": {
            "fingerprint": dataset.fingerprint,
            "images": len(dataset),
            "validation": [] if held_out is None else list(held_out.ids),
        },
    }


def commit(folder: Path) -> Optional[dict[str, Any]]:
    """The Git commit checked out in `folder`, and whether tracked files differ from it; None where Git says neither."""
    if not (folder / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": head, "modified": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> Optional[str]:
    # Looking must not lock or change anything that somebody else may be working with. Where it takes minutes, as over a
    # network, a training does not wait for it.
    done = machine.completed("git", "--no-optional-locks", "-C", str(folder), *words, seconds=5)
    return done.stdout.strip() if done.returncode == 0 else None


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": machine.cpu().model,
        "threads": machine.usable_cores(),
        "memory_gib": round(memory / 2**30, 1),
        "device": device().NAME,
    }
