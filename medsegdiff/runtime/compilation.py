"""How Jittor compiles, arranged so that a first start is short.

By itself Jittor runs a compiler for each 3 GB of memory, whatever the number of cores; compiles its core, which only
drives the kernels, at -O2; parses the standard library anew for each of two hundred sources; and starts a Python
process and two compilers for each kernel. All that is changed here by Jittor's own settings and by replacing one
function of `jittor_utils` in this process. Kernels keep Jittor's -Ofast, less its approximate division and square
root (`EXACT`).

Nothing here imports Jittor.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from medsegdiff.base import machine, screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing

CACHE_KEY = "MEDSEGDIFF_CACHE_KEY"
"""Environment variable: what stands in the cache's path for the host's name and kernel, so that like machines share."""

_PRELUDE, _LAUNCHER = "prelude.h", "compile_kernel.sh"
EXACT = "-fno-reciprocal-math -mno-recip" if platform.machine() in ("x86_64", "AMD64") else ""
"""For every kernel: division and square root as the processor has them.

-Ofast lets GCC write both as an approximate reciprocal and a step of Newton's method. That is infinity, and then NaN,
for a subnormal number, such as AdamW's second moment of a gradient of 1e-20. The second option forbids it for divisions
and roots, the first for the reciprocal of a root.
"""
_CORE, _KERNELS = "-O1", f"-Ofast {EXACT}".strip()
# A precompiled header serves sources with the same flags only; where these are not Jittor's any more, the compiler
# reads the header itself.
_COMMON = "-std=c++14 -fPIC -march=native"
_PRECOMPILED = {"core": f"{_COMMON} {_CORE}", "kernels": f"{_COMMON} -fopenmp {_KERNELS}"}


def cache_name() -> str:
    """What the cache's last folder is called: by everything that the compiled code depends on and its path lacks.

    Jittor compiles anew, in the same folder, what other flags were used for, and ends the process where that is so
    for its first part. Another program's Jittor, or another version of ours, must therefore have a folder of its own.
    Virtual machines often do not say which CPU theirs is, only what it can do.
    """
    ours = "" if _left_alone() else f"{_PRECOMPILED} {Path(__file__).with_name(_PRELUDE).read_text()}"
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

    jittor_utils.run_cmds = run_commands
    settings = _settings()
    os.environ.update(settings)
    try:
        yield
    except SystemExit as stop:  # it says why, if at all, in its log
        raise InputError("Jittor had to compile a part of itself anew and must be started again: repeat this") from stop
    finally:  # read by Jittor's import alone, and not meant for child processes, whose cache may be another
        for name in settings:
            del os.environ[name]


def _left_alone() -> bool:
    """Whether Jittor's own flags stay: where there are the user's, a debug build or CUDA, or another compiler."""
    own = any(name in os.environ for name in ("cc_flags", "kernel_flags")) or os.environ.get("debug") == "1"
    return own or bool(os.environ.get("nvcc_path")) or "g++" not in Path(os.environ.get("cc_path") or "g++").name


def exact(flags: str, compiler: str) -> str:
    """A kernel's `flags`, whoever chose them, with exact division and square root added at the end, where they win."""
    wanted = EXACT.replace("-mno-recip", "-mrecip=none") if "clang" in Path(compiler).name else EXACT
    return flags if wanted in flags else f"{flags} {wanted} "


def _settings() -> dict[str, str]:
    """The environment variables for Jittor's import."""
    import jittor_utils

    if _left_alone():
        return {}
    return {"cc_flags": f' {_CORE} -include "{_precompile(jittor_utils.cc_path)}" ', "kernel_flags": f" {_KERNELS} "}


def _folder() -> Path:
    import jittor_utils

    folder = Path(jittor_utils.cache_path) / "medsegdiff"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lay_down(name: str) -> Path:
    """Copy a file of this package into the cache, unless it is there: a cache is to work from wherever we are."""
    source, copy = Path(__file__).with_name(name), _folder() / name
    if not copy.exists() or copy.read_bytes() != source.read_bytes():
        with replacing(copy) as beside:
            shutil.copyfile(source, beside)
        shutil.rmtree(copy.with_name(f"{name}.gch"), ignore_errors=True)
    return copy


def _precompile(compiler: str) -> Path:
    """The header for all sources, in the cache, with what the compiler has made of it beside."""
    from jittor_utils import lock

    with lock.lock_scope():  # other processes may be about to do the same
        header = _lay_down(_PRELUDE)
        folder = header.with_name(f"{_PRELUDE}.gch")  # where the compiler looks for one that fits its flags
        if not folder.exists():
            with replacing(folder) as beside:
                beside.mkdir()
                commands = [
                    [compiler, "-x", "c++-header", *flags.split(), str(header), "-o", str(beside / name)]
                    for name, flags in _PRECOMPILED.items()
                ]
                # A failure costs time, not correctness.
                for process in [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]:
                    process.wait()
    return header


def kernel_compiler(python: str) -> str:
    """What to call in place of `python` for each kernel: for the flag `python_path` of Jittor."""
    return f'/bin/sh "{_lay_down(_LAUNCHER)}" --python="{python}"'


def run_commands(commands: Sequence[str], cache_path: str, jittor_path: str, msg: str = "") -> None:
    """Run those compiler commands whose results are not in the cache, with a progress bar once it takes longer.

    Stands in for `jittor_utils.run_cmds`. One process a core, and the largest source first, so that it is not
    what the end waits for. The processes end with the commands, by themselves: Jittor's handlers may ignore the signal
    by which a `multiprocessing.Pool` ends those that are idle, and whoever waits for them holds the cache's lock.

    Raises:
        InputError: one of the processes was killed.
    """
    import jittor_utils

    tasks = [(command, cache_path, jittor_path) for command in sorted(commands, key=_source_size, reverse=True)]
    if not tasks:
        return
    if multiprocessing.current_process().daemon:  # such a process may not have any of its own
        for task in tasks:
            jittor_utils.do_compile(task)
        return
    what = "Jittor's core" if "jittor_core" in msg else "Jittor's operators"
    with ProcessPoolExecutor(
        min(machine.usable_cores(), len(tasks)), multiprocessing.get_context("fork"), _start_worker
    ) as pool:
        done = as_completed([pool.submit(jittor_utils.do_compile, task) for task in tasks])
        try:
            for finished in screen.track(done, len(tasks), f"compiling {what}", "file"):
                finished.result()
        except BrokenProcessPool:
            raise InputError(
                "a process that compiled was killed, perhaps for want of memory; free some, and repeat this"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import jittor_utils

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C would print a traceback for each worker
    jittor_utils.pool_initializer()


def _source_size(command: str) -> int:
    try:
        return Path(shlex.split(command)[1]).stat().st_size
    except (OSError, IndexError, ValueError):
        return 0
