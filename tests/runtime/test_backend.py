import subprocess
import sys
import threading

import numpy as np
import pytest

from medsegdiff.runtime.backend import subnormals_are_zero
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


# In a process of its own: what others have left in memory is given back, or used again, meanwhile.
SHARING = """
from pathlib import Path
import numpy as np
from medsegdiff.runtime.backend import give_back_memory, jt, share_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

def filled(mib):
    array = jt.array(np.ones(mib << 18, np.float32))
    array.sync()
    return array

give_back_memory()
before = resident()
share_memory()
print(resident() - before)
arrays = [filled(20) for _ in range(5)]
del arrays
large = filled(90)
print(resident() - before)
del large
give_back_memory()
print(resident() - before)
"""


def test_arrays_of_all_sizes_share_memory():
    done = subprocess.run([sys.executable, "-c", SHARING], capture_output=True, text=True, check=True)
    alone, shared, given_back = map(float, done.stdout.split()[-3:])
    assert alone < 10  # it takes none by itself
    assert shared < 150  # with a copy of NumPy's
    assert given_back < 20
