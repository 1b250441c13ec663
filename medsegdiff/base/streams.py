"""Standard input, output and error of a command: open, and no reason to fail late."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Optional, TextIO


def secure() -> None:
    """Make the three usable, where they were closed by leading nowhere, and let any text be printed.

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
