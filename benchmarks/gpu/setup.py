"""Prepare a bare machine: the packages, data and caches that were brought, and the changed copy of Jittor."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu import pieces
from benchmarks.gpu.results import Row
from benchmarks.gpu.visit import ROOT

if TYPE_CHECKING:
    from benchmarks.gpu.stages import Job, Rows

DATA, WHEELS = "isic.tar", "wheels"


def setup(job: Job) -> Rows:
    """Prepare; a second time only what is missing."""
    from benchmarks.gpu.stages import attempted

    visit = job.visit
    yield attempted("packages", partial(install, visit.carried / WHEELS, visit.work / "site"))
    yield attempted("data", partial(_unpack_data, visit.carried / DATA, visit.work / "data"))
    yield attempted("compiled before", partial(_unpack_cache, visit.carried, visit.home))
    if not job.known("machine"):
        yield attempted("machine", partial(_machine, visit.rehearsal))
    if not visit.rehearsal:
        yield attempted("copy of Jittor", partial(_prepare, visit.home))


def install(wheels: Path, site: Path) -> Row:
    """Install the wheels without a network: NumPy into a folder `numpy`, the others into `site` beside it.

    They stand before the machine's packages, NumPy only where Jittor computes: it is older than what SciPy wants there.
    """
    files = sorted(wheels.glob("*.whl"))
    if files and not site.exists():
        offline = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *offline]
        for folder, own in ((site, False), (site.with_name("numpy"), True)):
            chosen = [str(file) for file in files if file.name.startswith("numpy-") is own]
            if chosen:
                subprocess.run([*pip, "--target", str(folder), *chosen], check=True)
    return {"wheels": len(files)}


def _unpack_data(archive: Path, folder: Path) -> Row:
    if archive.exists() and not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder)
    return {"images": len(list(folder.glob("images/*/*.png")))}


def _unpack_cache(carried: Path, home: Path) -> Row:
    if home.exists():
        return {"files": 0}
    return {"files": pieces.unpack(carried, home)}


def _machine(rehearsal: bool) -> Row:
    """What stands beside the numbers."""
    row = {"python": platform.python_version(), "cores": os.cpu_count(), "kernel": platform.release()}
    asked = {"nvcc": ["nvcc", "--version"], "g++": ["g++", "--version"]}
    if not rehearsal:
        asked["gpu"] = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        asked["torch"] = [sys.executable, "-c", "import torch, numpy; print(torch.__version__, numpy.__version__)"]
    for name, command in asked.items():
        found = shutil.which(command[0])
        done = subprocess.run(command, capture_output=True, text=True, check=False) if found else None
        row[name] = " ".join(done.stdout.split())[:240] if done else "not there"
    return row


_PREPARATION = """
import sys
from pathlib import Path
from medsegdiff.runtime.cuda import edits, prepare
prepare.prepare(Path(sys.argv[1]), edits.JITTOR_VERSION, None, print)
"""  # in a process of its own, which finds the packages that were just installed


def _prepare(home: Path) -> Row:
    copies = home / ".cache" / "jittor" / "medsegdiff-cuda"
    if not any(copies.glob("*/prepared.json")):
        subprocess.run([sys.executable, "-c", _PREPARATION, str(home)], cwd=ROOT, check=True)
    return {"copy": next(copies.glob("*/prepared.json")).parent.name}
