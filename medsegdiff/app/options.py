"""Command-line options from configuration dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Optional

from jsonargparse import ArgumentParser, Namespace

from medsegdiff.app.help_text import HelpFormatter
from medsegdiff.app.option_files import ConfigFile, files_first
from medsegdiff.base import machine
from medsegdiff.base.errors import InputError, did_you_mean, flag
from medsegdiff.base.reading import is_folder


class Parser(ArgumentParser):
    """A parser whose errors are one line, and which takes - and _ in option names alike."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Its own spelling, --print_config, would be the only option with an underscore.
        options = {"print_config": "--print-config", "formatter_class": HelpFormatter, **options}
        super().__init__(*args, **options)
        self.register("action", "config", ConfigFile)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # a window such as -160..240 is a value, no option
        self.from_file: dict[str, str] = {}
        """The options that a file sets, and which file."""
        self.given: set[str] = set()
        """The options of the command line, or those that are Python's arguments."""
        self.spell = flag
        """How the options are written that no file sets."""

    def option(self, name: str, default: Any, text: str, kind: Any = None, group: Any = None, **more: Any) -> None:
        """Add the option `name`, with its dashes, to a group of the help if one is given; `text` is its help.

        Its type is `kind`, by default that of `default`, or an optional text if that is None; `more` is as for
        `add_argument`.
        """
        kind = kind or (Optional[str] if default is None else type(default))
        options: dict[str, Any] = {"type": kind, "default": default}
        if kind is bool:  # true where it is given alone, false or true where it is given so
            options = {"type": bool, "nargs": "?", "const": True, "default": default}
        elif typing.get_origin(kind) is Literal:
            options["metavar"] = f"{{{','.join(filter(None, typing.get_args(kind)))}}}"
        elif kind is tuple or typing.get_origin(kind) is Sequence:
            options = {"type": str, "nargs": "*", "default": list(default)}
        (group or self).add_argument(name, **{**options, **more}, help=text)

    def put_first(self, *options: str) -> None:
        """Show these options before all others in the help, and -h with its like last."""
        usual = self.add_argument_group("usual options")
        for option in options:
            action = self._option_string_actions[option]
            for group in self._action_groups:
                if action in group._group_actions:
                    group._group_actions.remove(action)
            usual._group_actions.append(action)
        self._optionals.title = "other options"
        others = [group for group in self._action_groups if group not in (usual, self._optionals)]
        self._action_groups[:] = [usual, *others, self._optionals]

    def format_help(self, *formatter: Any) -> str:
        """The help, with a usage of one line: the options are listed below it."""
        self.usage = " ".join([self._command, *self._positionals_shown.values(), "[options]"])
        return super().format_help(*formatter)

    @property
    def fields(self) -> list[str]:
        """The options that a file may set."""
        shown = [action for action in self._actions if action.option_strings and not isinstance(action, ConfigFile)]
        return [action.dest for action in shown if action.dest not in ("help", "print_config")]

    @property
    def _positionals_shown(self) -> dict[str, str]:
        """How the help writes the words that follow no flag, by their fields."""
        found = [action for action in self._actions if not action.option_strings]
        return {action.dest: str(action.metavar or action.dest).upper() for action in found}

    @property
    def _command(self) -> str:
        return self.prog.replace(" [options]", "")  # which jsonargparse writes before a subcommand

    def error(self, message: str, ex: Optional[Exception] = None) -> NoReturn:
        """Raise `message`, made one line, as an `InputError`."""
        line = in_our_words(" ".join(str(message).split()), self._option_string_actions)
        raise self.explained(InputError(f"{line} (see {self._command} --help)"))

    def explained(self, error: InputError) -> InputError:
        """The error with each option as the user wrote it: a flag, a key of the file that sets it, or an argument."""

        def file(field: str) -> str:
            return "" if flag(field) in self.given else self.from_file.get(field, "")

        def spelled(field: str) -> str:
            return field if file(field) else self._positionals_shown.get(field) or self.spell(field)

        line = error.spelled(spelled)
        first = re.match(r"`(\w+)`", str(error.args[0]))
        return InputError(f"{file(first[1])}: {line}" if first and file(first[1]) else line)

    def parse_args(self, args: Optional[Sequence[str]] = None, *rest: Any, **options: Any) -> Namespace:
        """As the base class does, after writing `--image_size` as `--image-size`.

        Raises:
            InputError: as `parse_object`, or an option that takes a list is given twice: one list would be lost.
        """
        if args is not None:
            args = files_first(respelled(args, "_", "-"))
            given = [word.partition("=")[0] for word in args if word.startswith("--")]
            self.given = set(given)
            for action in self._actions:
                if action.nargs in ("*", "+") and sum(map(given.count, action.option_strings)) > 1:
                    raise InputError(f"`{action.dest}`: given several times; give all after one: `{action.dest}` A B")
        return _settled(super().parse_args(args, *rest, **options))

    def parse_object(self, *args: Any, **options: Any) -> Namespace:
        """As the base class does.

        Raises:
            InputError: a text holds what no path can.
        """
        return _settled(super().parse_object(*args, **options))


def _settled(options: Namespace) -> Namespace:
    """The options with `~` in paths read as shells do, which do not see those in files or after `=`."""
    for name, value in list(options.items()):
        texts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
        if any("\0" in text for text in texts):
            raise InputError(f"`{name}` {value!r}: holds a NUL character; remove it")
        if texts and (name == "images" or name.endswith(("_dir", "_path"))):
            paths = [
                str(machine.home() / text[2:]) if text[:2] in ("~", "~/", f"~{os.sep}") else text for text in texts
            ]
            options[name] = paths if isinstance(value, list) else paths[0]
    return options


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def in_our_words(line: str, known: Iterable[str]) -> str:
    """An error message of jsonargparse with what is wrong first, and the nearest known name of an unknown one."""
    if unknown := re.search(r"unrecognized arguments: (.*)", line, re.IGNORECASE):
        words = unknown.group(1).split()
        word = next((word for word in words if word.startswith("-")), "").partition("=")[0]
        return f"{word}: no such option{did_you_mean(word, known)}" if word else f"{words[0]}: belongs to no option"
    if unknown := re.search(r"Option '([^']+)' is not accepted", line):
        name, names = unknown.group(1), [option[2:].replace("-", "_") for option in known]
        return f"`{name}`: no such option{did_you_mean(name, names)}"
    if required := re.fullmatch(r"the following arguments are required: (.*)", line):
        names = required[1].split(", ")  # an action's with a dot between
        return ", ".join(name.split(".")[1].upper() if "." in name else f"`{name}`" for name in names) + ": missing"
    line = re.sub(r"^argument (--\S+): expected (?:at least )?one argument$", r"\1: needs a value", line)
    if chosen := re.fullmatch(r"argument \S+: invalid choice: '(.*)' \(choose from (.*)\)", line):
        return f"{chosen.group(1)}: must be one of {_listed(chosen.group(2))}"
    line = re.sub(r'^Parser key "([^"]+)":', r"`\1`:", line)
    if choice := re.fullmatch(r"(\S+): Expected a typing\.Literal\[(.*)\]\. Got value: ?(.*)", line):
        option, choices, value = choice.groups()
        return f"{option} {value}: must be one of {_listed(choices)}"
    if several := re.fullmatch(r"(\S+): Does not validate .*Subtypes: \[(.*?)\] .*Given value: (.*)", line):
        option, kinds, value = several.groups()
        kinds = [kind for kind in re.findall(r"'(\w+)'", kinds) if kind != "NoneType"]
        return f"{option}: must be {' or '.join(_KINDS.get(kind, kind) for kind in kinds)}, not {value}"
    line = re.sub(r"Expected a <class 'str'>\. Got value: (.*)", r'must be text: in YAML write "\1", with quotes', line)
    wrong = re.fullmatch(r"(.*): Expected a <class '(\w+)'>\. Got value: ?(.*)", line)
    wrong = wrong or re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", line)
    if wrong:
        return f"{wrong[1]}: must be {_KINDS.get(wrong[2], wrong[2])}, not {wrong[3] or 'empty'}"
    return re.sub(r"^argument (?=--)", "", line)


def _listed(choices: str) -> str:
    """Quoted words with commas between, without quotes and without the empty one."""
    return ", ".join(filter(None, choices.replace("'", "").split(", ")))


def check_layout(data_name: str, data_dir: str) -> None:
    """Refuse the layout of a dataset where none is given.

    Raises:
        InputError: it would say nothing.
    """
    if data_name != "auto" and not data_dir:
        raise InputError(f"`data_name` {data_name}: has an effect with `data_dir` only; leave it out")


def output_folder(name: str) -> Path:
    """The folder that `--out-dir` names.

    Raises:
        InputError: it is empty, which would be the working directory, or there is something else than a folder.
    """
    if not name:
        raise InputError('`out_dir` "": is empty; give a folder, or . for the working directory')
    if os.path.lexists(name) and not is_folder(Path(name)):  # which would else be noticed after all work
        raise InputError(f"{name}: a file, or a link that leads nowhere, is in the way; give another `out_dir`")
    return Path(name)


def respelled(argv: Sequence[str], before: str, after: str) -> list[str]:
    """`argv` with `before` in option names, behind their dashes, turned into `after`."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append("--" + name[2:].replace(before, after) + equals + value if name.startswith("--") else word)
    return words


def helps(section: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field."""
    _, _, text = inspect.cleandoc(section.__doc__ or "").partition("Args:")  # indented or, from Python 3.13 on, not
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


WhichWeights = Literal["ema", "model"]
"""Which weights of a checkpoint are meant: the first average, or those of the last step."""


def add_weights(parser: Parser) -> None:
    """Add the option that says which weights of a checkpoint are meant."""
    parser.option("--weights", "ema", "averaged weights, or those of the last step", WhichWeights)


def add_section(parser: Parser, section: type, title: str = "", skip: Sequence[str] = (), **defaults: Any) -> None:
    """Add an option for every field of the dataclass `section` but `skip`, in a group named `title` if it is given.

    A field's metadata may say what its "metavar" in the help is.
    """
    group = parser.add_argument_group(title) if title else None
    texts, types = helps(section), typing.get_type_hints(section)
    for f in dataclasses.fields(section):
        if f.name not in skip:
            default = defaults.get(f.name, f.default)
            metavar = {"metavar": f.metadata["metavar"]} if "metavar" in f.metadata else {}
            parser.option(flag(f.name), default, texts.get(f.name, ""), types[f.name], group, **metavar)
