"""Users' files, opened so that none can hang, run or outgrow the program: regular files only, of bounded content."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import yaml

from medsegdiff.base import screen, system
from medsegdiff.base.errors import InputError

_MOST_BYTES = 1 << 26  # of a text: a table of a million images takes less
_DEEPEST = 20
_NAMED = 5  # files, of each kind of note
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_seen: set[tuple[str, str]] = set()
_counts: Counter[str] = Counter()


class _Loader(yaml.SafeLoader):
    """Plain values, numbers as people read them, and no name twice: the first would be lost silently.

    To YAML 1.1 1e-4 is text, 010 is 8 and 2020-01-01 a date.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [known for known in resolvers if not known[0].endswith((":int", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            seen = Counter(key.value for key, _ in node.value)
            twice = next((key for key, _ in node.value if seen[key.value] > 1), node)
            raise yaml.constructor.ConstructorError(None, None, f"{twice.value} is given twice", twice.start_mark)
        return found


_NUMBERS = {"int": r"0|[1-9]\d*", "float": r"(\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan"}
for _kind, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"[-+]?({_pattern})$"), list("-+.0123456789")
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The open file, which is a regular one and not empty.

    Raises:
        InputError: it is missing, forbidden, empty, or a folder, a pipe, a device or a socket.
    """
    try:
        handle = os.open(path, os.O_RDONLY | system.NO_WAITING)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        if path.is_dir():  # as Windows says it
            raise InputError(f"{path}: a folder, where a file was expected; give a regular file") from None
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); give a regular file") from None
    except ValueError:  # a NUL in the name
        raise InputError(f"{str(path)!r}: cannot be a file's name; check the path") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise InputError(f"{path}: {kind}, where a file was expected; give a regular file")
    with os.fdopen(handle, "rb") as file:
        if found.st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); download or export it again")
        yield file


def read_text(path: Path) -> str:
    """A UTF-8 text, without the mark that some systems put before it.

    Raises:
        InputError: as `reading`, or it is too large or not UTF-8.
    """
    with reading(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES >> 20} MB; give a file of text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: as `read_text`; it is not JSON, or nested too deep.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); restore it, or write it anew") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file of plain values holds.

    Raises:
        InputError: as `read_text`; it is no YAML, nested deeper than any options are, or has aliases, by which a
            small file can stand for one of any size.
    """
    text, depth = read_text(path), 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{path}: line {event.start_mark.line + 1}: an alias (*{event.anchor}); write it out")
            if depth > _DEEPEST:
                raise InputError(f"{path}: line {event.start_mark.line + 1}: nested deeper than {_DEEPEST} levels")
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: is no file of options: {' '.join(str(error).split())}") from None


def path_of(value: Any, argument: str) -> Path:
    """What Python gave as an argument of this name, as a path.

    Raises:
        InputError: it is none, or empty, or no system has such names.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{argument}: a {type(value).__name__}; give a path")
    try:
        name = os.fsencode(value)
    except UnicodeEncodeError:
        name = b"\0"
    if not name or b"\0" in name:
        raise InputError(f"{argument} {value!a}: {'can be no name' if name else 'is empty'}; give a path")
    return Path(os.fsdecode(name))


def is_folder(path: Path) -> bool:
    """Whether it is a folder; `Path.is_dir` fails without permission."""
    with contextlib.suppress(OSError, ValueError):
        return path.is_dir()
    return False


def followed(path: Path) -> Path:
    """Where a path leads, links followed as far as they lead; `Path.resolve` fails where they lead in a circle."""
    return Path(os.path.realpath(path))


def composed(name: str) -> str:
    """A name with each letter and its accents as one character, as most systems write it; macOS parts them."""
    return unicodedata.normalize("NFC", name)


def check_name(path: Path) -> None:
    """Refuse a file whose name cannot be written into tables and reports.

    Raises:
        InputError: it is not UTF-8, or Python was told that names are ASCII.
    """
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError:
        told = sys.getfilesystemencoding() != "utf-8"
        reason = "cannot be read by this locale" if told else "is not UTF-8 (of an older system?)"
        remedy = "set LC_ALL=C.UTF-8, and unset PYTHONUTF8" if told else "rename it"
        raise InputError(f"{str(path)!a}: its name {reason}; {remedy}") from None


def note(path: Path, what: str) -> None:
    """Say on standard error how a file was understood: of each kind of note the first files only, and those once."""
    if (str(path), what) in _seen or _counts[what] == _NAMED:
        return
    _seen.add((str(path), what))
    _counts[what] += 1
    last = " (further files of this kind are not named)" if _counts[what] == _NAMED else ""
    screen.note(f"note: {path}: {what}{last}")
