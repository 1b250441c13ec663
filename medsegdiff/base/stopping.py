"""What signals that ask a command to stop do: one line and the right exit code, at any moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Optional

from medsegdiff.base import system

_SIGNALS = system.STOPPING

_ours: dict[int, Any] = {}
"""The handlers of `asked`, while they are installed."""
_waiting: Optional[list[int]] = None
"""Signals that came while they were held back; None outside of that."""


def _leave_to_the_system() -> None:
    """In a child, such as a compiler's worker: it ends at once, though it may be waiting where no Python runs."""
    for number, handler in _ours.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_system)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; what is half written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def held_back() -> Iterator[None]:
    """Let these signals wait for the end of the block, which is to be a short one.

    Programs that it starts inherit this, and so survive a Ctrl-C that goes to the whole group.
    """
    global _waiting
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _waiting = []  # the mask is this thread's: where there are others, one of them takes the signal
    try:
        yield
    finally:
        taken, _waiting = _waiting or [], None
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in taken[:1]:
            signal.raise_signal(number)


@contextmanager
def heeded() -> Iterator[None]:
    """Let signals come within the block, though it lies in one of `held_back` or a library has installed handlers."""
    global _waiting
    held = _waiting
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        for number, handler in _ours.items():
            signal.signal(number, handler)
        _waiting = None  # from here on one that another thread took, or that waits, may come at once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for number in (held or ())[:1]:
            signal.raise_signal(number)
        yield
    finally:
        _waiting = None if held is None else []
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def asked() -> Iterator[list[int]]:
    """Raise `Stopped` within the block when a signal asks for it, and note its number in the list.

    Not every library lets an exception through that comes while it is imported; the list tells what became of it.
    Signals that are ignored, as `nohup` wants it, stay so. In another thread than the main one nothing is changed.
    """
    heard: list[int] = []

    def stop(number: int, _frame: Optional[FrameType]) -> None:
        if _waiting is not None:
            _waiting.append(number)
            return
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
                _ours[number] = stop
        yield heard
    finally:
        _ours.clear()
        for number, handler in before.items():
            if handler is not None:  # None: installed by other C code
                signal.signal(number, handler)
