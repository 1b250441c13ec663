"""What tests want of the processor, or of what the environment leaves of it."""

import ctypes
import threading

import numpy as np
import pytest

from medsegdiff.base import machine
from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import subnormals_are_zero

_MISSING = precision.missing_on_cpu("bf16", machine.cpu())
needs_bf16 = pytest.mark.skipif(bool(_MISSING), reason=f"bf16: {_MISSING}")
BF16 = pytest.param("bf16", marks=needs_bf16)
SUBNORMALS = pytest.mark.parametrize("flush", [True, False], ids=["subnormals-zero", "subnormals-kept"])


def set_threads(count=None):
    """Let kernels that are called from this thread have so many threads, by default all; returns how many they had."""
    gomp = ctypes.CDLL("libgomp.so.1")  # as Jittor loads it
    before = gomp.omp_get_max_threads()
    gomp.omp_set_num_threads(count or machine.usable_cores())
    return before


def with_subnormals(flush, function, *arguments):
    """What `function` returns in a thread that takes subnormal numbers for zero, or not, and whose helpers do too.

    Kernels have all threads there. One that is loaded for the first time makes them zero in the thread that loads it:
    then it is called again.
    """
    results = []

    def work():
        set_threads()
        for _ in range(3):
            subnormals_are_zero(flush)
            result = function(*arguments)
            if kept() != flush:
                results.append(result)
                return

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results, "it raised; what, is printed above"
    return results[0]


def kept():
    """Whether this thread computes with subnormal numbers."""
    subnormal = np.full(8, 71362, np.uint32).view(np.float32)  # 1e-40, whatever a conversion would make of it
    return bool((subnormal * np.float32(1)).any())


@pytest.fixture
def exact():
    """NumPy, in this thread, computes with subnormal numbers: they are zero where Jittor has been loaded."""
    subnormals_are_zero(False)
    yield
    subnormals_are_zero()
