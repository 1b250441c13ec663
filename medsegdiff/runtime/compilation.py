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
import importlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.base import machine, screen, stopping
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing

CACHE_KEY = "MEDSEGDIFF_CACHE_KEY"
"""Environment variable: what stands in the cache's path for the host's name and kernel, so that like machines share."""

_NUMBER = 2  # bytes that name a task
_COMPILER = 3e9  # bytes that one may take
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
    except (AssertionError, ImportError) as error:
        raise InputError(_unloadable(error)) from error
    finally:  # read by Jittor's import alone, and not meant for child processes, whose cache may be another
        for name in settings:
            del os.environ[name]


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

    Stands in for `jittor_utils.run_cmds`. As many at once as there are cores, and memory for, and the largest source
    first, so that it is not what the end waits for. Pipes join the processes: `multiprocessing` wants semaphores,
    which some containers lack, and waits for ever for a worker that Jittor's handlers keep from ending.

    Raises:
        InputError: one of the processes was killed.
        RuntimeError: a compiler failed.
    """

    tasks = [(command, cache_path, jittor_path) for command in sorted(commands, key=_source_size, reverse=True)]
    if not tasks:
        return
    (todo, fill), (done, tell) = os.pipe(), os.pipe()
    os.write(
        fill, b"".join(index.to_bytes(_NUMBER, "little") for index in range(len(tasks)))
    )  # a pipe holds 65536 bytes
    os.close(fill)
    what = "Jittor's core" if "jittor_core" in msg else "Jittor's operators"
    workers: list[int] = []
    with stopping.heeded(), os.fdopen(done, encoding="utf-8", errors="replace") as lines:
        try:
            workers += [_start_worker(tasks, todo, tell) for _ in range(min(compilers(), len(tasks)))]
            for end in (todo, tell):
                os.close(end)
            complaints = [line for line in screen.track(lines, len(tasks), f"compiling {what}", "file") if line.strip()]
        except BaseException:
            for worker in workers:
                os.killpg(worker, signal.SIGTERM)  # compilers remove what they have half written
            raise
        finally:
            codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    if min(codes) < 0:
        raise InputError("a process that compiled was killed, perhaps for want of memory; free some, and repeat this")
    if complaints:
        raise RuntimeError(complaints[0].strip())


def compilers() -> int:
    """How many compilers may run at once: one a core, and one for each 3 GB of memory."""
    return max(1, min(machine.usable_cores(), int(machine.memory() / _COMPILER)))


def _start_worker(tasks: Sequence[Any], todo: int, tell: int) -> int:
    """Start a process, in a group of its own, that works off the tasks whose numbers it reads from the pipe `todo`.

    To the pipe `tell` it writes a line for each, which is empty where all is well. Returns the process's number.
    """
    import jittor_utils

    worker = os.fork()
    if worker:
        with contextlib.suppress(OSError):  # it may have done so itself, or have ended
            os.setpgid(worker, worker)
        return worker
    try:
        os.setpgid(0, 0)
        jittor_utils.pool_initializer()
        while number := os.read(todo, _NUMBER):
            jittor_utils.do_compile(tasks[int.from_bytes(number, "little")])
            os.write(tell, b"\n")
    except BaseException as error:  # a line of 4096 bytes is written at once
        os.write(tell, f"{' '.join(str(error).split()) or type(error).__name__}\n".encode(errors="replace")[-4000:])
    finally:
        os._exit(0)


def _source_size(command: str) -> int:
    try:
        return Path(shlex.split(command)[1]).stat().st_size
    except (OSError, IndexError, ValueError):
        return 0
