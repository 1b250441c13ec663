"""The `medsegdiff` command."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Callable, Optional

from medsegdiff import __version__
from medsegdiff.app.completion import complete
from medsegdiff.app.options import Parser
from medsegdiff.base import ranks, screen, stopping, streams, system
from medsegdiff.base.errors import InputError, did_you_mean, flag, not_installed, spelled
from medsegdiff.base.files import REMEDIES
from medsegdiff.runtime import cache

COMMANDS = ("demo", "data", "train", "sample", "evaluate", "report", "serve", "convert", "parity", "doctor")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_OF_PATHS = {
    errno.ENOENT: "is not there, or was removed meanwhile; check the path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "a link that leads back to itself; remove it",
    errno.EACCES: "permission denied; choose another, or ask for the right",
    errno.ESTALE: "was removed meanwhile by another machine; check the path",
    errno.EIO: "the disk cannot read or write it; check the disk",
}
OF_ALL = ("--quiet", "--json", "--debug")
"""Options of every command."""
SHARED = ("train", "sample")
"""Commands whose work several processes share."""
_OVERVIEW = """\
medsegdiff: medical image segmentation with a diffusion model, on Jittor

usage: medsegdiff COMMAND [options]     medsegdiff help COMMAND

{}

Every command takes --quiet (print errors only), --json (print the result as
one JSON object) and --debug (show tracebacks).
Exit codes: 0 done, 1 a check failed, 2 bad input, 128 + N stopped by signal N
(130: Ctrl-C)."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 a check failed, 2 bad input, 128 + N stopped by signal N."""
    if "_ARGCOMPLETE" in os.environ:
        complete({name: partial(_parser, name) for name in COMMANDS}, OF_ALL)
    words = list(sys.argv[1:] if argv is None else argv)
    asked = {word for word in words if word in OF_ALL}
    words = [word for word in words if word not in OF_ALL]
    return report(lambda: _run(words), "--debug" in asked, "--quiet" in asked, "--json" in asked)


def report(command: Callable[[], int], debug: bool = False, quiet: bool = False, as_json: bool = False) -> int:
    """Run `command`, which speaks as `screen.speaking` says; say in one line on standard error what stopped it."""

    def run() -> int:
        with screen.speaking(quiet, as_json):
            _check_working_directory()
            return command()

    streams.secure()
    code, complaint = _outcome(run, debug)
    refused = streams.refusal(sys.stdout)  # now: at its end the interpreter would complain in many lines
    if complaint is None and refused:
        code, complaint = _unwritable(refused, "standard output")
    return code if complaint is None else ranks.fail(code, complaint)


def _check_working_directory() -> None:
    """Refuse one that was removed: relative paths would fail, but only in part of the work."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the working directory was removed; change to another, and repeat the command") from None


def _outcome(command: Callable[[], int], debug: bool) -> tuple[int, Optional[str]]:
    """The exit code of `command`, and the complaint if it failed."""
    heard: list[int] = []
    try:
        with stopping.asked(heard), ranks.only_the_leader_speaks():
            code = command()
        if not heard:
            return code, None
    except SystemExit:  # as after --help
        if not heard:
            streams.refusal(sys.stdout)
            raise
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130), "stopped"
    except Exception as error:
        if not heard:
            code, complaint = _failure(error)
            return code, (traceback.format_exc() if debug else "") + spelled(complaint, str)
    return 128 + heard[0], "stopped"  # whatever a library made of it


def _failure(error: Exception) -> tuple[int, str]:
    """The exit code that says what went wrong, and a line that does."""
    if isinstance(error, InputError):
        return 2, f"error: {error.spelled(flag)}"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("medsegdiff"):
        return 2, f"error: {not_installed(error)}"
    if isinstance(error, BrokenPipeError):
        return _unwritable(error, "")
    if isinstance(error, OSError) and error.errno in _FULL:
        return _unwritable(error, error.filename or "standard output or a file")
    if isinstance(error, OSError) and error.errno in _OF_PATHS:
        return 2, f"error: {error.filename or 'the working directory'}: {_OF_PATHS[error.errno]}"
    if compiling := cache.compiler_failure(error):
        return 2, f"error: {compiling}"
    line = " ".join(str(error).split())[:300]
    full = next((number for number in _FULL if os.strerror(number) in str(error)), None)
    if full is not None:  # as a compiler says, or a library that copies
        return 2, f"error: {REMEDIES[full]} ({line})"
    return 2, f"error: unexpected {type(error).__name__}: {line} (--debug shows where)"


def _unwritable(error: OSError, what: str) -> tuple[int, str]:
    if isinstance(error, BrokenPipeError):  # the reader of our output has left, as `head` does
        return 128 + system.SIGPIPE, ""
    return 2, f"error: {what}: cannot be written: {REMEDIES.get(error.errno or 0, error.strerror)}"


def _run(words: list[str]) -> int:
    asked = words[:1] in (["-h"], ["--help"], ["help"])
    if asked and len(words) > 1 and words[0] == "help":
        words, asked = [*words[1:], "--help"], False
    if asked or not words:
        print(_OVERVIEW.format("\n".join(f"  {name:10}{_load(name).SUMMARY}" for name in COMMANDS)))
        return 0 if words else 2
    if words[0] == "--version":
        print(f"medsegdiff {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = did_you_mean(words[0], COMMANDS)
        raise InputError(f"{words[0]}: no such command{near or '; there are ' + ', '.join(COMMANDS)}")
    if ranks.count() > 1 and words[0] not in SHARED:
        raise InputError(f"{words[0]}: runs in one process; start it without mpirun")
    command, parser = _load(words[0]), _parser(words[0])
    options = parser.parse_args(words[1:])
    try:
        return command.run(options)
    except InputError as error:
        raise parser.explained(error) from error


def _parser(name: str) -> Parser:
    command = _load(name)
    parser = Parser(prog=f"medsegdiff {name}", description=command.SUMMARY[0].upper() + command.SUMMARY[1:] + ".")
    command.configure(parser)
    return parser


def _load(name: str):  # noqa: ANN202 (a module)
    return importlib.import_module(f"medsegdiff.app.{name}")
