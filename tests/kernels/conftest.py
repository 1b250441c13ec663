import ctypes

import pytest

from medsegdiff.base import machine
from medsegdiff.runtime.backend import jt  # noqa: F401 (loads libgomp)


@pytest.fixture(autouse=True, scope="module")
def threads():
    """All of them, though tests that run side by side have one each."""
    gomp = ctypes.CDLL("libgomp.so.1")
    before = gomp.omp_get_max_threads()
    gomp.omp_set_num_threads(machine.usable_cores())
    yield
    gomp.omp_set_num_threads(before)
