"""What signals that ask a command to stop do: one line and the right exit code, at any moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; what is half written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def at_once() -> None:
    """End the process at SIGINT, in one line: for its first moments, in which there is nothing to be lost."""

    def end(number: int, _frame: Optional[FrameType]) -> None:
        os.write(2, b"stopped\n")
        os._exit(128 + number)

    signal.signal(signal.SIGINT, end)


@contextmanager
def asked() -> Iterator[list[int]]:
    """Raise `Stopped` within the block when a signal asks for it, and note its number in the list.

    Not every library lets an exception through that comes while it is imported; the list tells what became of it.
    Signals that are ignored, as `nohup` wants it, stay so. In another thread than the main one nothing is changed.
    """
    heard: list[int] = []
    owner = os.getpid()

    def stop(number: int, _frame: Optional[FrameType]) -> None:
        if os.getpid() != owner:  # a child that is to end at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        heard.append(number)
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        yield heard
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: installed by other C code
                signal.signal(number, handler)
