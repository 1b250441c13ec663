"""Words for the user while something takes long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def say_if_slow(message: str, after: float = 8.0) -> Iterator[None]:
    """Print `message` on standard error if the block is still running after `after` seconds."""
    timer = threading.Timer(after, print, (message,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
