"""What signals that ask a command to stop do: one line and the right exit code, at any moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Optional

from medsegdiff.base import system

_SIGNALS = system.STOPPING
_IMPORTING = "<frozen importlib._bootstrap>"
"""The code into which nothing may be raised: it would keep the lock of imports, and other threads would hang."""
_SOON, _LATER = 1e-3, 0.1  # seconds

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
def asked(heard: list[int]) -> Iterator[None]:
    """Raise `Stopped` within the block when a signal asks for it, and note its number in `heard`.

    Not every library lets an exception through: C code may clear one that came in a function that it called, as
    NumPy's does while it is imported, and destructors and callbacks of weak references let none out. So it is raised
    again until the block has ended, and what they print of it is not shown. Where Python itself would not bear it, it
    is raised a moment later. Signals that are ignored, as `nohup` wants it, stay so. In another thread than the main
    one nothing is changed.
    """
    timed = hasattr(signal, "setitimer")  # Windows has none

    def stop(number: int, frame: Optional[FrameType]) -> None:
        if _waiting is not None:
            _waiting.append(number)
            return
        importing = frame is not None and frame.f_code.co_filename == _IMPORTING
        again(number, _SOON if importing else _LATER)
        if not importing or not timed:
            warnings.simplefilter("ignore")  # what clears an exception may warn of that
            heard.append(number)
            raise Stopped(number)

    def again(number: int, seconds: float) -> None:
        def look(_: int, frame: Optional[FrameType]) -> None:
            if _ends(sys.exc_info()[1]):
                again(number, _LATER)
            else:
                stop(number, frame)

        if timed and _ours:
            signal.signal(signal.SIGALRM, look)
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def swallowed(what: Any) -> None:
        if not isinstance(what.exc_value, Stopped):
            unraisable(what)

    def printed(kind: type[BaseException], value: BaseException, trace: Optional[TracebackType]) -> None:
        if not isinstance(value, Stopped):
            uncaught(kind, value, trace)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, *([signal.SIGALRM] if timed else ()))}
    unraisable, uncaught = sys.unraisablehook, sys.excepthook
    with warnings.catch_warnings():
        try:
            try:
                sys.unraisablehook, sys.excepthook = swallowed, printed
                for number in _SIGNALS:
                    if before[number] != signal.SIG_IGN:
                        _ours[number] = stop
                        signal.signal(number, stop)
                yield
            finally:
                _ours.clear()  # first, in a `finally` of its own: one that comes within the next is not raised again
        finally:
            if timed:
                signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook, sys.excepthook = unraisable, uncaught
            for number, handler in before.items():
                if handler is not None:  # None: installed by other C code
                    signal.signal(number, handler)


def _ends(error: Optional[BaseException]) -> bool:
    """Whether what is done now is done because of `Stopped`, as cleaning up is."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None
