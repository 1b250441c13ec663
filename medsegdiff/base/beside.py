"""Work in another thread, beside what goes on here."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, Optional


@contextmanager
def beside() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Give a function that has a task done in another thread, one after another, at most one waiting for it.

    What a task raises is raised by the next call or by the end of the block, which waits for the last one.
    """
    last: Optional[Future[Any]] = None

    def do(task: Callable[[], Any]) -> None:
        nonlocal last
        if last is not None:
            last.result()
        last = thread.submit(task)

    with ThreadPoolExecutor(1) as thread:
        yield do
        if last is not None:
            last.result()
