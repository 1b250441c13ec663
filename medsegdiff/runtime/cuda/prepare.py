"""Making the changed copy of Jittor: edited, compiled and tried in a process of its own, or not there at all."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import exclusive, make_folder, replacing
from medsegdiff.runtime.cuda import copies, edits, toolkit

LEAST_FREE = 2**30  # bytes; see docs/gpu.md for what is used
Say = Callable[[str], None]
_DURATION = "about seven minutes on one core"


def prepare(home: Path, jittor_version: str, arch: Optional[int], say: Say) -> Path:
    """Make the copy of Jittor for the installed CUDA, in place of one that is there.

    Args:
        home: Jittor's home, below which the copy and all that is compiled lie
        jittor_version: the installed release
        arch: the GPUs' compute capability times ten, such as 90; None to ask the GPUs, of which there must be one
        say: is called with lines that tell what is going on

    Raises:
        InputError: something is missing, does not fit or cannot be compiled; then there is no copy.
    """
    edits.refuse_other(jittor_version)
    found = _toolkit()
    if arch is None and toolkit.driver_version() is None:
        raise InputError(
            "no NVIDIA driver (libcuda) here to ask for the GPU's kind; name it, as `cuda_arch` 90, or run on the GPU"
        )
    copy = copies.folder(home, found, jittor_version)
    make_folder(copy.parent)
    free = shutil.disk_usage(copy.parent).free
    if free < LEAST_FREE:
        raise InputError(
            f"{copy.parent}: {free / 2**30:.1f} GB free, {LEAST_FREE / 2**30:.0f} wanted; "
            "free some, or set JITTOR_HOME to a folder on another disk"
        )
    with exclusive(copy.parent), _nothing_half_done(copy):
        say(
            f"copying Jittor {jittor_version} to {copy} and making {len(edits.EDITS)} changes there; "
            "the installed one stays as it is"
        )
        _lay_down(copy, found, jittor_version)
        say(f"compiling the copy with CUDA {found.cuda} and cuDNN {found.cudnn}, {_DURATION}")
        begun = time.perf_counter()
        log = copy.with_name(f"{copy.name}.log")
        lines = _compile(copy, arch, log, say)
        log.unlink()
        say(f"compiled in {time.perf_counter() - begun:.0f} s")
        with replacing(copy / copies.RECORD) as beside:
            record = {"jittor": jittor_version, "cuda": found.cuda, "cudnn": found.cudnn, "nvcc": str(found.nvcc)}
            beside.write_text(json.dumps({**record, "compiled": lines}, indent=1) + "\n", encoding="utf-8")
    return copy


def remove(home: Path) -> bool:
    """Remove all copies, and what was compiled of them; whether there were any."""
    there = copies.parent(home).is_dir()
    if there:
        names = [path.name for path in copies.parent(home).iterdir() if path.is_dir()]
        for name in names:
            for cache in (home / ".cache" / "jittor").glob(f"jt*/**/*-{name}"):
                shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(copies.parent(home))
    return there


def _toolkit() -> toolkit.Toolkit:
    found = toolkit.find()
    if found is None:
        raise InputError(f"no CUDA compiler (nvcc) found; install CUDA: {toolkit.remedy_without_nvcc()}")
    if found.version[0] not in toolkit.MAJORS:
        majors = " and ".join(map(str, toolkit.MAJORS))
        raise InputError(f"{found.nvcc} is CUDA {found.cuda}; what is prepared here is Jittor for CUDA {majors}")
    if missing := found.missing():
        names = ", ".join(part.name for part in missing)
        raise InputError(
            f"CUDA {found.cuda} ({found.nvcc}) lacks {names}; install: {toolkit.remedy(missing, found.version)}"
        )
    newest = toolkit.driver_version()
    if newest is not None and newest[0] < found.version[0]:
        raise InputError(
            f"the NVIDIA driver runs CUDA up to {newest[0]}.{newest[1]}, not {found.cuda} of {found.nvcc}; "
            f"update the driver, or set nvcc_path to the nvcc of a CUDA {newest[0]} toolkit"
        )
    return found


def _lay_down(copy: Path, found: toolkit.Toolkit, jittor_version: str) -> None:
    with replacing(copy) as beside:
        shutil.copytree(_installed(), beside / "jittor", ignore=shutil.ignore_patterns("__pycache__"))
        edits.apply(beside / "jittor", jittor_version)
        toolkit.lay_out(found, beside / "cuda")


def _installed() -> Path:
    """The folder of the installed Jittor, which is not imported for that."""
    return Path(next(iter(importlib.util.find_spec("jittor").submodule_search_locations)))


@contextmanager
def _nothing_half_done(copy: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _compile(copy: Path, arch: Optional[int], log: Path, say: Say) -> list[str]:
    """Compile and try `copy` in a new process, passing on what it prints; returns that too."""
    environment = {**os.environ, "log_silent": "1"}
    if arch is not None:
        environment["cuda_archs"] = str(arch)
    command = [sys.executable, "-m", "medsegdiff.runtime.cuda.trial", str(copy)]
    said = []
    with log.open("w", encoding="utf-8") as errors:
        # A session of its own, so that Jittor's compile processes can be ended with it.
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            for line in process.stdout:
                say(line.rstrip())
                said.append(line.rstrip())
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode != 0:
        raise InputError(f"the changed Jittor could not be compiled: {_last_line(log)}; {log} tells more")
    return said


def _last_line(log: Path) -> str:
    """What `log` ends with, without colours and progress bars."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [re.sub(r".*\d+/\d+ \[[^]]*\]", "", line).strip() for line in re.split(r"[\r\n]", text)]
    told = [line for line in lines if line]
    return told[-1][:200] if told else "no reason given"
