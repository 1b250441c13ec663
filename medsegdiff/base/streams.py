"""Standard input, output and error of a command: open, and never a reason to fail late."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, Optional, TextIO


class _Forgiving(io.RawIOBase):
    """A stream that drops what it cannot take: what is said on standard error is no reason to end the work."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # of bytes; Windows' console has one of its own kind

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any) -> int:
        try:
            return self._stream.write(data) or 0
        except OSError:  # full, or nobody reads
            return memoryview(data).nbytes


def secure() -> None:
    """Make the three usable, replacing closed ones by streams to nowhere, and let any text be printed.

    Else the next file to be opened would have the number of a closed one, and what libraries print would land in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:  # not where tests and others listen
        raw = io.BufferedWriter(_Forgiving(getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def refusal(stream: TextIO) -> Optional[OSError]:
    """Why `stream` does not take what was printed; from then on it leads nowhere. None if all is well."""
    try:
        stream.flush()
    except OSError as error:  # what is buffered stays so, and goes nowhere at the end
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
    return None
