"""What signals that ask a command to stop do: one line and the right exit code, at any moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Optional

from medsegdiff.base import system

_SIGNALS = system.STOPPING
_IMPORTING = "<frozen importlib._bootstrap>"
"""The code into which nothing may be raised: it would keep the lock of imports, and other threads would hang."""
_SOON = 1e-3  # seconds

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
    Where Python itself would not let it through, it is raised a moment later. Signals that are ignored, as `nohup`
    wants it, stay so. In another thread than the main one nothing is changed.
    """
    heard: list[int] = []

    def stop(number: int, frame: Optional[FrameType]) -> None:
        if _waiting is not None:
            _waiting.append(number)
        elif frame is not None and frame.f_code.co_filename == _IMPORTING and hasattr(signal, "setitimer"):
            soon(number)
        else:
            heard.append(number)
            raise Stopped(number)

    def soon(number: int) -> None:
        signal.signal(signal.SIGALRM, lambda _, frame: stop(number, frame) if _ours else None)
        signal.setitimer(signal.ITIMER_REAL, _SOON)

    def swallowed(what: Any) -> None:
        """What a destructor or a weak reference's callback raised; from these nothing gets out."""
        if isinstance(what.exc_value, Stopped) and hasattr(signal, "setitimer"):
            soon(what.exc_value.exit_code - 128)
        else:
            hook(what)

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, swallowed
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
                _ours[number] = stop
        yield heard
    finally:
        _ours.clear()
        sys.unraisablehook = hook
        for number, handler in before.items():
            if handler is not None:  # None: installed by other C code
                signal.signal(number, handler)
