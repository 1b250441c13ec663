"""Jittor, ready to use: `from medsegdiff.runtime.backend import jt`.

The first import on a machine compiles Jittor's core, which takes about a minute and a half.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import threading
import warnings
from typing import ClassVar

import numpy as np

from medsegdiff.base import screen, stopping
from medsegdiff.runtime import compilation, compilers, requirements, toolchain

_SHARED = 256 << 20
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h
_GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 32 MiB that are freed.

    It would give them back and have them again at each operation: a page fault for every 4 KiB.
    """
    if _GLIBC is not None:
        for option, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 1 << 30)):
            _GLIBC.mallopt(option, value)


class _FloatingPointState(ctypes.Structure):
    """glibc's `fenv_t` on x86-64."""

    _fields_: ClassVar = [("x87", ctypes.c_uint8 * 28), ("mxcsr", ctypes.c_uint32)]


_FLUSH_RESULTS, _FLUSH_OPERANDS = 1 << 15, 1 << 6


def subnormals_are_zero(flush: bool = True) -> None:
    """Take subnormal numbers for zero in this thread, and in those that it starts from now on; or no more.

    Libraries that were compiled with -Ofast say so in whichever thread loads them: without this, what is computed with
    numbers below 1.2e-38 would depend on where and when that was. They are also a hundred times slower to compute with.
    """
    if _GLIBC is None or platform.machine() != "x86_64":
        return
    maths, state, bits = ctypes.CDLL("libm.so.6"), _FloatingPointState(), _FLUSH_RESULTS | _FLUSH_OPERANDS
    maths.fegetenv(ctypes.byref(state))
    state.mxcsr = state.mxcsr | bits if flush else state.mxcsr & ~bits
    maths.fesetenv(ctypes.byref(state))


def give_back_memory() -> None:
    """Return what is free now, and what Jittor keeps for later, to the system."""
    jt.gc()
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)


def share_memory() -> None:
    """Let Jittor's large arrays share 256 MiB until memory is given back: once, as what was not used takes none.

    By itself Jittor has memory for each of more than 5 MiB, and what one size has left is of no use to a larger one.
    """
    jt.empty((_SHARED,), "int8").sync(False, False)


def _import_jittor():  # noqa: ANN202 (an untyped module)
    requirements.check()
    toolchain.prepare()
    short = toolchain.is_compiled()
    if not short:
        screen.note("compiling Jittor's core, once: about a minute and a half on two free cores")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    # Jittor ends the process on these; Ctrl-C must reach Python, and a child's death is the parent's matter. Until that
    # is so again, signals wait. It leaves Ctrl-C alone where it sees this variable of Jupyter's.
    jupyter = os.environ.setdefault("JPY_PARENT_PID", "")
    with stopping.held_back() if short else contextlib.nullcontext():
        try:
            with compilation.arranged(), warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of Jittor's texts, from Python 3.12 on
                import jittor
        finally:
            if not jupyter:
                del os.environ["JPY_PARENT_PID"]
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number, handler in handlers.items():
                if handler is not None:  # None: installed by other C code
                    signal.signal(number, handler)
    jittor.flags.python_path = compilation.kernel_compiler(jittor.flags.python_path)
    flags = jittor.flags.cc_flags.replace(f'/{compilation.CORE_HEADER}"', f'/{compilation.KERNEL_HEADER}"')
    jittor.flags.cc_flags = compilation.exact(flags, jittor.flags.cc_path)
    jittor.flags.use_parallel_op_compiler = compilers.count()
    # Jittor's -Ofast libraries flush subnormal numbers to zero, which NumPy remarks upon.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal", module="numpy")
    if jittor.has_cuda:
        # What it makes faster, it makes inexact: divisions, square roots, sines of large numbers.
        jittor.flags.nvcc_flags = jittor.flags.nvcc_flags.replace("--use_fast_math", "")
        # Else an array that comes from the host stops the GPU: it waits for all that was started before.
        jittor.flags.use_cuda_host_allocator = 0
    jittor.flags.use_cuda = int(bool(jittor.has_cuda))
    return jittor


_keep_freed_memory()
subnormals_are_zero()
jt = _import_jittor()
nn, Var = jt.nn, jt.Var


def persistent(array: np.ndarray) -> Var:
    """A variable of `array` that lives longer than a step, as weights do.

    On a GPU it gets memory of its own. Else it would keep the copy in the host's memory from which it came, and each
    operation that is done with it would stop the GPU to say so.
    """
    value = jt.array(array)
    return value.copy() if jt.flags.use_cuda else value
