"""Work in other threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable


@contextmanager
def beside(threads: int = 1) -> Iterator[Callable[..., None]]:
    """Give a function `do(task, share=1)` that has a task done in another thread.

    Tasks begin in order. Those of which the shares come to more than 1, and more tasks than threads, are not under way
    at a time: until there is room for one, `do` waits. What a task raises is raised by a later call, or by the end of
    the block, the earliest task's first; either way those that were begun are done by then.
    """
    under_way: deque[tuple[Future[Any], float]] = deque()

    def do(task: Callable[[], Any], share: float = 1) -> None:
        while under_way and (
            under_way[0][0].done() or len(under_way) == threads or share + sum(one for _, one in under_way) > 1
        ):
            under_way.popleft()[0].result()
        under_way.append((pool.submit(task), share))

    with ThreadPoolExecutor(threads) as pool:
        yield do
        for last, _ in under_way:
            last.result()
