"""The one exception that reaches the user as a single line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Callable


class InputError(Exception):
    """Something the user gave, or the machine lacks, makes the work impossible.

    The message is one line: which file or option, what is wrong with it, and what to do. It names an option by its
    field, in backquotes: "`image_size` 100: must be ...". From Python that is the argument; commands, which print the
    line on standard error and end with exit code 2, spell it as a flag, or as the key of a file of options.
    """

    def __str__(self) -> str:
        return self.spelled(str)

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message with each option's field as `spell` writes it."""
        return spelled(str(self.args[0]) if self.args else "", spell)


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """A text of one line, with each option's field, which is in backquotes, as `spell` writes it.

    A file's name may hold the end of a line, or what a terminal takes for a command.
    """
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)
    return re.sub(r"`([a-z]\w*)`", lambda found: spell(found[1]), text)


def flag(field: str) -> str:
    """The option of a command for a field."""
    return f"--{field.replace('_', '-')}"


def not_installed(error: ModuleNotFoundError) -> str:
    """The message about a missing module that an installation of the package would have."""
    remedy = "install the package for it (pip install . in a clone), or use the Python of the environment that has it"
    return f"{error.name}: is not installed for {sys.executable}; {remedy}"


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """What follows the error about an unknown `word`: the nearest known one, or another remedy if there is one."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    remedy = f"did you mean {near[0]}?" if near else otherwise
    return remedy and f"; {remedy}"
