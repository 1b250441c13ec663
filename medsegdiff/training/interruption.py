"""Stopping a training: signals are noted, and obeyed between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from medsegdiff.runtime.cache import compiler_failure

# What mpirun passes on and Slurm can send, and what a terminal sends that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Interrupted(Exception):
    """Training was asked to stop and has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect signals instead of ending; one that is ignored, as under `nohup`, stays ignored.

    In another thread than the main one, as a program of one's own may train in, they stay as they are.

    Raises:
        Interrupted: a compiler failed after one had come: Ctrl-C in a terminal goes to the compilers, too.
    """
    requests: list[int] = []
    ours = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    heeded = [number for number in ours if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: requests.append(n)) for number in heeded}
    try:
        yield requests
    except Exception as error:
        if requests and compiler_failure(error):
            raise Interrupted(requests[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold stop requests back until the block is done, unless another thread of the process takes them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def held_back(requests: list[int]) -> bool:
    """Whether there is a stop request, be it among `requests` or waiting for the end of `undisturbed`."""
    return bool(requests) or not signal.sigpending().isdisjoint(_SIGNALS)
