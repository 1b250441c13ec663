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
