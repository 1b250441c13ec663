"""Jittor, ready to use: `from medsegdiff.runtime.backend import jt`.

The first import on a machine compiles Jittor's core, which takes about two minutes.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings

from medsegdiff.runtime import toolchain


def _import_jittor():  # noqa: ANN202 (an untyped module)
    toolchain.prepare()
    if not toolchain.is_compiled():
        print("compiling Jittor's core, about two minutes, once", file=sys.stderr, flush=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    import jittor

    # Jittor ends the process on these; Ctrl-C must reach Python, and a child's death is the parent's matter.
    if threading.current_thread() is threading.main_thread():  # only there may handlers be set
        for number, handler in handlers.items():
            if handler is not None:  # None: installed by other C code
                signal.signal(number, handler)
    toolchain.end_compile_workers()
    # Jittor's -Ofast libraries flush subnormal numbers to zero, which NumPy remarks upon.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal", module="numpy")
    if jittor.has_cuda:
        # What it makes faster, it makes inexact: divisions, square roots, sines of large numbers.
        jittor.flags.nvcc_flags = jittor.flags.nvcc_flags.replace("--use_fast_math", "")
    jittor.flags.use_cuda = int(bool(jittor.has_cuda))
    return jittor


jt = _import_jittor()
nn = jt.nn
