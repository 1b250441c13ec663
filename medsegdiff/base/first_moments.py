"""What Ctrl-C does while the command is still being imported. This module itself imports nothing that takes time."""

import _signal  # type: ignore[import-not-found]  # `signal` imports `enum`: milliseconds in which Ctrl-C is a traceback
import os


def end_at_once() -> None:
    """End the process at SIGINT from now on, in one line: there is nothing yet that could be lost.

    Where it is ignored, as of what a script runs in the background, it stays so.
    """
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _end)


def _end(number: int, _frame: object) -> None:
    try:
        os.write(2, b"stopped\n")
    finally:  # nobody may read it
        os._exit(128 + number)
