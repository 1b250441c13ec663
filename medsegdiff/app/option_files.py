"""The option `--config`: a file of options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from jsonargparse import ActionConfigFile, Namespace

from medsegdiff.base.errors import InputError, did_you_mean
from medsegdiff.config.files import read_config

if TYPE_CHECKING:
    from medsegdiff.app.options import Parser


def files_first(words: Sequence[str]) -> list[str]:
    """Files of options before all else: the command line overrides them, in whatever order they are given."""
    files: list[str] = []
    others: list[str] = []
    for word in words:
        follows = files[-1:] == ["--config"] and not word.startswith("--")
        (files if follows or word == "--config" or word.startswith("--config=") else others).append(word)
    return [*files, *others]


class ConfigFile(ActionConfigFile):
    """Reads a file of options, or one that comes with the package by its name."""

    def __call__(self, parser: Parser, options: Namespace, value: str, option: Optional[str] = None) -> None:
        """Put what the file says into `options`."""
        found, known = read_config(value), parser.fields
        for name in found:
            if name not in known:
                raise InputError(f"{value}: {name}: no such option{did_you_mean(name, known, 'remove it')}")
        parser.from_file.update(dict.fromkeys(found, value))
        options.update(parser.parse_object(found, env=False, defaults=False, _skip_validation=True))
        options[self.dest] = [*(options.get(self.dest) or ()), value]
