import threading
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.runtime.backend import give_back_memory, jt, share_memory, subnormals_are_zero
from tests.processor import SUBNORMALS, kept, with_subnormals


def elsewhere(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_subnormals_are_zero_once_jittor_is_there():
    assert not kept()
    assert not elsewhere(kept)


@SUBNORMALS
def test_a_thread_decides_for_itself_and_those_that_it_starts(flush):
    def work():
        return kept(), elsewhere(kept)

    assert with_subnormals(flush, work) == (not flush, not flush)
    assert not kept()


def test_it_can_be_told_twice():
    subnormals_are_zero()
    assert not kept()
    assert np.float32(1e-38) + np.float32(1e-38) == pytest.approx(2e-38)


def resident():
    """MiB of memory that this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def filled(mib):
    array = jt.array(np.ones(mib << 18, np.float32))
    array.sync()
    return array


def test_arrays_of_all_sizes_share_memory():
    give_back_memory()
    before = resident()
    share_memory()
    assert resident() - before < 10  # it takes none by itself
    arrays = [filled(20) for _ in range(5)]
    del arrays
    large = filled(90)
    assert resident() - before < 150  # with a copy of NumPy's
    del large
    give_back_memory()
    assert resident() - before < 20
