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
from medsegdiff.app.options import Parser, did_you_mean
from medsegdiff.base import machine, ranks
from medsegdiff.base.errors import InputError

COMMANDS = ("demo", "data", "train", "sample", "evaluate", "parity", "doctor")
SHARED = ("train", "sample")
"""Commands whose work several processes share."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 a check failed, 2 bad input, 128 + N stopped by signal N."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    return report(lambda: _run(words), debug)


def report(command: Callable[[], int], debug: bool = False) -> int:
    """Run `command`; print one line on standard error if something stopped it."""
    try:
        with ranks.only_the_leader_speaks():
            return command()
    except InputError as error:
        return ranks.fail(2, _traceback(debug) + f"error: {error}")
    except KeyboardInterrupt:
        return ranks.fail(130, "stopped")
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ranks.fail(128 + signal.SIGPIPE, "")
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        complaint = f"error: unexpected {type(error).__name__}: {line} (--debug shows where)"
        return ranks.fail(2, _traceback(debug) + complaint)


def _traceback(wanted: bool) -> str:
    return traceback.format_exc() if wanted else ""


def _run(words: list[str]) -> int:
    machine.check_system()
    asked = words[:1] in (["-h"], ["--help"], ["help"])
    if asked and len(words) > 1 and words[0] == "help":
        words, asked = [*words[1:], "--help"], False
    if asked or not words:
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"medsegdiff {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = did_you_mean(words[0], COMMANDS)
        raise InputError(f"{words[0]}: no such command{near or '; there are ' + ', '.join(COMMANDS)}")
    if ranks.count() > 1 and words[0] not in SHARED:
        raise InputError(f"{words[0]}: is work for one process; start it without mpirun")
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
            "usage: medsegdiff COMMAND [options]     medsegdiff help COMMAND",
            "",
            *lines,
            "",
            "Exit codes: 0 done, 1 a check failed, 2 bad input; 130, 143, 138 stopped by Ctrl-C, SIGTERM, SIGUSR1.",
            "--debug shows tracebacks.",
        ]
    )
