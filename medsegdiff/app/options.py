"""Command-line options from configuration dataclasses."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import read_yaml
from medsegdiff.config.files import find_config


class _ConfigFile(ActionConfigFile):
    """Takes options from a YAML file, one's own or one that comes with the package, if it can be read safely."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Optional[str] = None) -> None:
        path = find_config(Path(str(values)).expanduser())
        if not isinstance(read_yaml(path), dict):
            raise InputError(f"{values}: holds no options; write lines such as `image_size: 256`")
        super().__call__(parser, namespace, str(path), option)


class Parser(ArgumentParser):
    """A parser whose complaints are one line, and which takes - and _ in option names alike."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Its own spelling, --print_config, would be the only option with an underscore.
        super().__init__(*args, **{"print_config": "--print-config", **options})
        self.register("action", "config", _ConfigFile)

    def error(self, message: str, ex: Optional[Exception] = None) -> NoReturn:
        """Raise `message`, made one line, as an `InputError`."""
        line = " ".join(str(message).split())
        line = re.sub(r'^Parser key "([^"]+)":', lambda found: f"--{found.group(1).replace('_', '-')}:", line)
        line = re.sub(r"Expected a <class '(\w+)'>\. Got value:", r"must be of type \1, not", line)
        raise InputError(f"{line} (see {self.prog} --help)")

    def parse_args(self, args: Optional[Sequence[str]] = None, *rest: Any, **options: Any) -> Namespace:
        """As the base class does, after writing `--image_size` as `--image-size`."""
        return super().parse_args(args if args is None else with_dashes(args), *rest, **options)


def output_folder(name: str) -> Path:
    """The folder that `--out-dir` names.

    Raises:
        InputError: it is empty, which would be the working directory.
    """
    if not name:
        raise InputError('--out-dir "": is empty; give a folder, or . for the working directory')
    return Path(name)


def with_dashes(argv: Sequence[str]) -> list[str]:
    """`argv` with the underscores of option names turned into dashes."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append(name.replace("_", "-") + equals + value if name.startswith("--") else word)
    return words


def helps(section: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field."""
    _, _, text = (section.__doc__ or "").partition("Args:")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def add_section(parser: ArgumentParser, section: type, title: str, skip: Sequence[str] = (), **defaults: Any) -> None:
    """Add an option for every field of the dataclass `section` but `skip`, in a group named `title`."""
    group = parser.add_argument_group(title)
    texts, types = helps(section), typing.get_type_hints(section)
    for f in dataclasses.fields(section):
        if f.name in skip:
            continue
        option = f"--{f.name.replace('_', '-')}"
        default = defaults.get(f.name, f.default)
        text = texts[f.name]
        if types[f.name] is bool:
            group.add_argument(option, type=bool, nargs="?", const=True, default=default, help=text)
        else:
            group.add_argument(option, type=types[f.name], default=default, help=text)
