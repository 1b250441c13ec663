"""A bare machine made ready: packages, data and caches that travelled, and the changed copy of Jittor."""

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

if TYPE_CHECKING:
    from benchmarks.gpu.stages import Job, Rows

DATA, WHEELS = "isic.tar", "wheels"


def setup(job: Job) -> Rows:
    """Make ready; a second time only what is missing."""
    from benchmarks.gpu.stages import attempted

    visit = job.visit
    yield attempted("packages", partial(install, visit.carried / WHEELS, visit.work / "site"))
    yield attempted("data", partial(_unpack_data, visit.carried / DATA, visit.work / "data"))
    yield attempted("compiled before", partial(_unpack_cache, visit.carried, visit.home))
    yield attempted("machine", partial(_machine, visit.rehearsal))
    if not visit.rehearsal:
        yield attempted("copy of Jittor", partial(_prepare, visit.home))


def install(wheels: Path, site: Path) -> Row:
    """Install the wheels into a folder of their own, without a network; it stands before the machine's packages."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if files and not site.exists():
        offline = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(site), *files]
        subprocess.run(command, check=True)
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


def _prepare(home: Path) -> Row:
    copies = home / ".cache" / "jittor" / "medsegdiff-cuda"
    if not any(copies.glob("*/prepared.json")):
        # Its last act, the check of the GPU, may fail: the stage after this one says of what.
        subprocess.run([sys.executable, "-m", "medsegdiff", "doctor", "--prepare-cuda"], check=False)
    found = next(copies.glob("*/prepared.json"), None)
    if found is None:
        raise RuntimeError("there is no copy of Jittor for CUDA; the log says why")
    return {"copy": found.parent.name}
