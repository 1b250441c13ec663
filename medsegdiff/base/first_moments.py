"""Ctrl-C before the command begins and after it has ended. This module imports nothing that takes time."""

import _imp
import _signal  # type: ignore[import-not-found]  # `signal` imports `enum`: milliseconds in which Ctrl-C is a traceback
import atexit
import os


def end_at_once() -> None:
    """End the process at SIGINT from now on, in one line: there is nothing yet that could be lost.

    Also where the shell ignores it, as of what a script runs in the background: who sends it there means it. One that
    came before, and was held back by `env --block-signal=INT`, comes now. So does one that Python's own start lost, as
    far as can be told: it left the lock of imports taken, and the first import of another thread would wait for ever.

    The last moments of the interpreter, when the result is out and all threads have ended, are not disturbed: it would
    end by the signal, without a line.
    """
    _signal.signal(_signal.SIGINT, _end)
    if hasattr(_signal, "pthread_sigmask"):  # Windows has none
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})
    if _imp.lock_held():
        _end(_signal.SIGINT, None)
    atexit.register(_signal.signal, _signal.SIGINT, _signal.SIG_IGN)  # the first that is registered runs last


def _end(number: int, _frame: object) -> None:
    try:
        os.write(2, b"stopped\n")
    finally:  # nobody may read it
        os._exit(128 + number)
