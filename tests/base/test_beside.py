import threading
import time

import pytest

from medsegdiff.base.beside import beside


def test_tasks_are_done_in_order_in_one_other_thread_and_all_by_the_end():
    done = []
    with beside() as do:
        for number in range(5):
            do(lambda number=number: done.append((number, threading.get_ident())))
    assert [number for number, _ in done] == list(range(5))
    assert {thread for _, thread in done} != {threading.get_ident()}
    assert len({thread for _, thread in done}) == 1


def test_what_goes_on_does_not_wait_for_a_task():
    go_on = threading.Event()
    with beside() as do:
        do(lambda: go_on.wait(30))
        go_on.set()


@pytest.mark.parametrize("more", [0, 1])
def test_what_a_task_raises_comes_with_the_next_or_the_end(more):
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), beside() as do:
        do(fail)
        if more:
            do(lambda: None)
            pytest.fail("the next task was taken")


@pytest.mark.parametrize(("share", "at_once"), [(0, 3), (0.3, 3), (0.5, 2), (0.6, 1), (7, 1)])
def test_as_many_tasks_are_under_way_as_threads_and_shares_allow(share, at_once):
    meeting, lock, now, most = threading.Barrier(at_once), threading.Lock(), 0, 0

    def task():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        meeting.wait(30)  # for as many as may be there
        time.sleep(0.01)  # and for one too many
        with lock:
            now -= 1

    with beside(3) as do:
        for _ in range(6):
            do(task, share)
    assert most == at_once


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_is_under_way_beside_it_to_be_done(error):
    failed, done = threading.Event(), []

    def fail():
        failed.set()
        raise OSError("full")

    def go_on():
        failed.wait(30)
        time.sleep(0.01)
        done.append(True)

    with pytest.raises(error), beside(2) as do:
        do(go_on, 0)
        do(fail, 0)
        failed.wait(30)
        if error is KeyboardInterrupt:
            raise KeyboardInterrupt
    assert done


def test_of_several_failures_the_earliest_task_s_is_raised():
    second = threading.Event()

    def fail(text):
        second.wait(30)
        raise OSError(text)

    with pytest.raises(OSError, match="first"), beside(2) as do:
        do(lambda: fail("first"), 0)
        do(lambda: (second.set(), fail("second")), 0)
