"""Importing Jittor's helpers so that they change nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import ssl
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from medsegdiff.base.errors import InputError

_NUMBERS = ("log_silent", "log_v", "conv_opt")


def place_with_space() -> str:
    """The folder of the installed Jittor, if there is a space in its path."""
    found = importlib.util.find_spec("jittor")
    folder = str(Path(found.origin).parent) if found and found.origin else ""
    return folder if re.search(r"\s", folder) else ""


def check_variables() -> None:
    """Refuse variables of the environment that Jittor's import would fail at; of an empty one it is as if unset.

    Raises:
        InputError: one is no number.
    """
    for name in ("JITTOR_HOME", *_NUMBERS):
        value = os.environ.get(name)
        if value == "":
            del os.environ[name]
        elif value and name in _NUMBERS and not re.fullmatch("-?[0-9]+", value):
            raise InputError(f"{name}={value} in the environment: must be a number, for Jittor; unset it")


@contextlib.contextmanager
def as_before(home: Path) -> Iterator[None]:
    """Import `jittor_utils`, whose cache is in `home`, within this block, and it changes nothing else.

    It would note a `JITTOR_HOME` in the user's home for ever, let HTTPS trust anybody, and recursion end in a crash.
    """
    users, recursion, https = os.environ.get("HOME"), sys.getrecursionlimit(), ssl._create_default_https_context
    os.environ["HOME"] = str(home)
    try:
        yield
    except OSError as error:  # its lock, half made, complains of itself when it is forgotten
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        traceback.clear_frames(error.__traceback__)
        sys.unraisablehook = hook
        raise
    finally:
        sys.setrecursionlimit(recursion)
        ssl._create_default_https_context = https
        del os.environ["HOME"]
        if users:
            os.environ["HOME"] = users
