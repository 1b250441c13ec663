"""What tests want of the processor, or of what the environment leaves of it."""

import threading

import pytest

from medsegdiff.base import machine
from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import subnormals_are_zero

_MISSING = precision.missing_on_cpu("bf16", machine.cpu())
needs_bf16 = pytest.mark.skipif(bool(_MISSING), reason=f"bf16: {_MISSING}")
BF16 = pytest.param("bf16", marks=needs_bf16)
SUBNORMALS = pytest.mark.parametrize("flush", [True, False], ids=["subnormals-zero", "subnormals-kept"])


def with_subnormals(flush, function, *arguments):
    """What `function` returns in a thread that takes subnormal numbers for zero, or not, and whose helpers do too."""
    results = []

    def work():
        subnormals_are_zero(flush)
        results.append(function(*arguments))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results, "it raised; what, is printed above"
    return results[0]


@pytest.fixture
def exact():
    """NumPy, in this thread, computes with subnormal numbers: they are zero where Jittor has been loaded."""
    subnormals_are_zero(False)
    yield
    subnormals_are_zero()
