"""Jittor, ready to use: `from medsegdiff.runtime.backend import jt`.

The first import on a machine compiles Jittor's core, which takes about a minute and a half.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import sys
import threading
import warnings

from medsegdiff.runtime import compilation, toolchain

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h
_GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 32 MiB that are freed.

    It would give them back and have them again at each operation: a page fault for every 4 KiB.
    """
    if _GLIBC is not None:
        for option, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 1 << 30)):
            _GLIBC.mallopt(option, value)


def give_back_memory() -> None:
    """Return what is free now, and what Jittor keeps for later, to the system."""
    jt.gc()
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)


def _import_jittor():  # noqa: ANN202 (an untyped module)
    toolchain.prepare()
    if not toolchain.is_compiled():
        print("compiling Jittor's core, about a minute and a half, once", file=sys.stderr, flush=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    with compilation.arranged():
        import jittor

    # Jittor ends the process on these; Ctrl-C must reach Python, and a child's death is the parent's matter.
    if threading.current_thread() is threading.main_thread():  # only there may handlers be set
        for number, handler in handlers.items():
            if handler is not None:  # None: installed by other C code
                signal.signal(number, handler)
    jittor.flags.python_path = compilation.kernel_compiler(jittor.flags.python_path)
    # Jittor's -Ofast libraries flush subnormal numbers to zero, which NumPy remarks upon.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal", module="numpy")
    if jittor.has_cuda:
        # What it makes faster, it makes inexact: divisions, square roots, sines of large numbers.
        jittor.flags.nvcc_flags = jittor.flags.nvcc_flags.replace("--use_fast_math", "")
    jittor.flags.use_cuda = int(bool(jittor.has_cuda))
    return jittor


_keep_freed_memory()
jt = _import_jittor()
nn = jt.nn
