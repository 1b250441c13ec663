"""How Jittor compiles, arranged so that a first start is short.

By itself Jittor compiles its core, which only drives the kernels, at -O2; parses the standard library and its own
headers anew for each of hundreds of sources; and starts a Python process and two compilers for each kernel. All that is
changed here by Jittor's own settings, and `medsegdiff.runtime.compilers` runs what compiles the core. Kernels keep
Jittor's -Ofast, less its approximate division and square root (`EXACT`).

Nothing here imports Jittor.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import remove, replacing
from medsegdiff.runtime import compilers

CACHE_KEY = "MEDSEGDIFF_CACHE_KEY"
"""Environment variable: what stands in the cache's path for the host's name and kernel, so that like machines share."""

_LAUNCHER = "compile_kernel.sh"
EXACT = "-fno-reciprocal-math -mno-recip" if platform.machine() in ("x86_64", "AMD64") else ""
"""For every kernel: division and square root as the processor has them.

-Ofast lets GCC write both as an approximate reciprocal and a step of Newton's method. That is infinity, and then NaN,
for a subnormal number, such as AdamW's second moment of a gradient of 1e-20. The second option forbids it for divisions
and roots, the first for the reciprocal of a root.
"""
_CORE, _KERNELS = "-O1", f"-Ofast {EXACT}".strip()
# From version 15 on g++ refuses Jittor's `stack_vector.h` for a function that nobody calls; older ones ignore the flag.
_LENIENT = "-Wno-template-body"
# A precompiled header serves sources with the same flags only; where these are not Jittor's any more, the compiler
# reads the header itself.
_COMMON = f"-std=c++14 -fPIC -march=native {_LENIENT}"
CORE_HEADER, KERNEL_HEADER = "core.h", "kernel.h"
_PRECOMPILED = {CORE_HEADER: f"{_COMMON} {_CORE}", KERNEL_HEADER: f"{_COMMON} -fopenmp {_KERNELS}"}


def cache_name() -> str:
    """What the cache's last folder is called: by everything that the compiled code depends on and its path lacks.

    Jittor compiles anew, in the same folder, what other flags were used for, and ends the process where that is so
    for its first part. Another program's Jittor, or another version of ours, must therefore have a folder of its own.
    Virtual machines often do not say which CPU theirs is, only what it can do.
    """
    headers = [Path(__file__).with_name(name).read_text() for name in _PRECOMPILED]
    ours = f"{compilers.EDITS}" if _left_alone() else f"{_PRECOMPILED} {headers} {compilers.EDITS}"
    theirs = [os.environ.get(name, "") for name in ("cc_flags", "kernel_flags", "debug")]
    parts = [
        " ".join(sorted(machine.cpu().flags)),
        os.environ.get("cc_path") or str(shutil.which("g++")),
        *theirs,
        ours,
    ]
    return f"medsegdiff-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def keyed() -> Iterator[None]:
    """Within the block, the key stands for the host's name and kernel; `jittor_utils` asks for them when imported."""
    key = os.environ.get(CACHE_KEY)
    host = platform.platform, platform.node
    if key:
        platform.platform, platform.node = (lambda *_: platform.system()), (lambda: key)
    try:
        yield
    finally:
        platform.platform, platform.node = host


@contextlib.contextmanager
def arranged() -> Iterator[None]:
    """Import Jittor within this block: its core, and later its kernels, are then compiled as described above.

    Raises:
        InputError: the cache cannot be written, or Jittor must be started again.
    """
    import jittor_utils

    jittor_utils.run_cmds = compilers.run_commands
    jittor_utils.sp = SimpleNamespace(**{**vars(subprocess), "run": _run_apart})
    settings = _settings()
    os.environ.update(settings)
    try:
        yield
    except SystemExit as stop:  # it says why, if at all, in its log
        raise InputError("Jittor has recompiled a part of itself and must be restarted: run this again") from stop
    except (AssertionError, ImportError) as error:
        raise InputError(_unloadable(error)) from error
    finally:  # read by Jittor's import alone, and not meant for child processes, whose cache may be another
        for name in settings:
            del os.environ[name]


def _run_apart(*words: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` for Jittor's import, out of reach of a terminal's Ctrl-C.

    Jittor ends the process where one of its children is killed, as one still may be in its first moments.
    """
    if threading.current_thread() is threading.main_thread():  # only there may handlers be set
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return subprocess.run(*words, start_new_session=True, **options)


def _unloadable(error: Exception) -> str:
    """Why what was compiled cannot be loaded; Jittor itself keeps silent about its first part."""
    try:
        importlib.import_module("jit_utils_core")
        reason = f"{type(error).__name__}: {error}"
    except Exception as found:
        reason = str(found)
    return (
        f"Jittor, or what was compiled of it, cannot be loaded ({' '.join(reason.split())[:400]}); if it wants a newer "
        "libstdc++, as in an environment of conda: conda install -c conda-forge libstdcxx-ng"
    )


def _left_alone() -> bool:
    """Whether Jittor's own flags stay: where there are the user's, a debug build or CUDA, or another compiler."""
    own = any(name in os.environ for name in ("cc_flags", "kernel_flags")) or os.environ.get("debug") == "1"
    return own or bool(os.environ.get("nvcc_path")) or not is_gcc(os.environ.get("cc_path") or "g++")


def is_gcc(compiler: str) -> bool:
    """Whether a compiler, by its name, is GCC's, which all this was made for and tried with."""
    name = Path(compiler).name
    return "g++" in name and "clang" not in name


def exact(flags: str, compiler: str) -> str:
    """A kernel's `flags`, whoever chose them, with exact division and square root added at the end, where they win."""
    wanted = EXACT.replace("-mno-recip", "-mrecip=none") if "clang" in Path(compiler).name else EXACT
    return flags if wanted in flags else f"{flags} {wanted} "


def _settings() -> dict[str, str]:
    """The environment variables for Jittor's import."""
    from jittor_utils import lock

    if _left_alone():
        return {}
    with lock.lock_scope():  # other processes may be about to do the same
        header, _ = (precompiled(name, _folder()) for name in _PRECOMPILED)
    return {"cc_flags": f' {_CORE} {_LENIENT} -include "{header}" ', "kernel_flags": f" {_KERNELS} "}


def _folder() -> Path:
    import jittor_utils

    folder = Path(jittor_utils.cache_path) / "medsegdiff"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lay_down(name: str, folder: Path) -> Path:
    """Copy a file of this package into the cache, unless it is there: a cache is to work from wherever we are."""
    source, copy = Path(__file__).with_name(name), folder / name
    if not copy.exists() or copy.read_bytes() != source.read_bytes():
        with replacing(copy) as beside:
            shutil.copyfile(source, beside)
        remove(copy.with_name(f"{name}.gch"))
    return copy


def precompiled(name: str, folder: Path, more: str = "") -> Path:
    """A header of this package in `folder`, where what the compiler has made of it stands beside.

    Args:
        name: `CORE_HEADER` or `KERNEL_HEADER`
        folder: a folder of the cache
        more: flags of the sources beyond the usual ones; what was compiled serves those with the same flags only
    """
    import jittor_utils

    _lay_down(CORE_HEADER, folder)  # the other one includes it
    header = _lay_down(name, folder)
    result = header.with_name(f"{name}.gch")  # where the compiler looks for it
    if not result.exists():
        sources = Path(jittor_utils.__file__).parents[1] / "jittor" / "src"
        command = [jittor_utils.cc_path, "-x", "c++-header", *f"{_PRECOMPILED[name]} {more}".split(), f"-I{sources}"]
        with replacing(result) as beside:
            done = subprocess.run([*command, str(header), "-o", str(beside)], stderr=subprocess.DEVNULL, check=False)
            if done.returncode:  # which costs time, not correctness
                beside.touch()
    return header


def kernel_compiler(python: str) -> str:
    """What to call in place of `python` for each kernel: for the flag `python_path` of Jittor.

    It is a part of each kernel's key, and an environment's interpreter has three names, of which people and scripts use
    different ones. Here it has one, or else each change of names would compile everything anew.
    """
    usual = Path(python).with_name(f"python{sys.version_info.major}.{sys.version_info.minor}")
    if usual.exists() and usual.samefile(python):
        python = str(usual)
    return f'/bin/sh "{_lay_down(_LAUNCHER, _folder())}" --python="{python}"'
