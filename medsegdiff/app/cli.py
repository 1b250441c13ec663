"""The `medsegdiff` command."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Callable, Optional

from medsegdiff import __version__
from medsegdiff.app.options import Parser
from medsegdiff.runtime.errors import InputError

COMMANDS = ("demo", "data", "train", "sample", "evaluate", "parity", "doctor")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 a check failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    return report(lambda: _run(words), debug)


def report(command: Callable[[], int], debug: bool = False) -> int:
    """Run `command`; say in one line on standard error what stopped it."""
    try:
        return command()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if debug:
            traceback.print_exc()
        line = " ".join(str(error).split())[:300]
        print(f"error: unexpected {type(error).__name__}: {line} (--debug shows where)", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"medsegdiff {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise InputError(f"{words[0]}: no such command; there are {', '.join(COMMANDS)}")
    command = _load(words[0])
    parser = Parser(prog=f"medsegdiff {words[0]}", description=command.SUMMARY[0].upper() + command.SUMMARY[1:] + ".")
    command.configure(parser)
    return command.run(parser.parse_args(words[1:]))


def _load(name: str):  # noqa: ANN202 (a module)
    return importlib.import_module(f"medsegdiff.app.{name}")


def _overview() -> str:
    lines = [f"  {name:10}{_load(name).SUMMARY}" for name in COMMANDS]
    return "\n".join(
        [
            "medsegdiff: medical image segmentation with a conditional diffusion model, on Jittor",
            "",
            "usage: medsegdiff COMMAND [options]     medsegdiff COMMAND --help",
            "",
            *lines,
            "",
            "Exit codes: 0 done, 1 a check failed, 2 bad input. --debug shows tracebacks.",
        ]
    )
