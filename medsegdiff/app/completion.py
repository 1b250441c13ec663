"""Completion in the shell, by the protocol of argcomplete."""

from __future__ import annotations

import argparse
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Callable


def complete(commands: Mapping[str, Callable[[], argparse.ArgumentParser]], of_all: Iterable[str]) -> None:
    """Answer the shell, and exit; `commands` give their parsers, and all have the options `of_all`."""
    import argcomplete

    named = os.environ["COMP_LINE"].split()[1:2]
    parser = argparse.ArgumentParser()
    added = parser.add_subparsers()
    added.add_parser("help")
    for name, parser_of in commands.items():
        plain = added.add_parser(name, add_help=False)
        if name in named:
            _mirror(parser_of(), plain)
            for option in of_all:
                plain.add_argument(option, action="store_true")
    argcomplete.autocomplete(parser)


def _mirror(parser: argparse.ArgumentParser, plain: argparse.ArgumentParser) -> None:
    """Give `plain` the options of one of ours, whose types argcomplete does not know."""
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if isinstance(action.choices, dict):
            added = plain.add_subparsers()
            for name, below in action.choices.items():
                _mirror(below, added.add_parser(name, add_help=False))
        elif action.option_strings and action.nargs == 0:
            plain.add_argument(*action.option_strings, action="store_true")
        elif action.option_strings:
            literal = typing.get_origin(kind) is typing.Literal
            choices = [word for word in typing.get_args(kind) if word] if literal else None
            plain.add_argument(*action.option_strings, nargs=action.nargs, choices=choices)
        else:
            plain.add_argument(action.dest, nargs="*")
