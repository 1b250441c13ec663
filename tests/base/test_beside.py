import threading

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
