"""What users' folders hold, and one clear line when they cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import is_folder

MOST_FOLDERS = 20_000
GLANCED, DEEPEST, _FEW = 10_000, 5, 50  # entries, levels: as archive/collection/patient/study/series, folders of each


def list_folder(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files.

    Raises:
        InputError: it is missing, not a folder or forbidden.
    """
    try:
        return sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder; check the path") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: a file, where a folder was expected; give the folder that holds it") from None
    except PermissionError:
        raise InputError(f"{folder}: permission denied; make the folder readable") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r}: cannot be read ({error}); check the path") from None


def folders_below(root: Path, enter: Callable[[Path], bool] = is_folder) -> Iterator[Path]:
    """The folder and those below it that `enter` accepts, each once, whatever links lead back; none if it is no folder.

    Raises:
        InputError: one cannot be read, or there are more than `MOST_FOLDERS`, more than a dataset has.
    """
    seen, waiting = set(), [Path(root)] if is_folder(Path(root)) else []
    while waiting:
        folder = waiting.pop()
        found = folder.stat()
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        if len(seen) > MOST_FOLDERS:
            raise InputError(f"{root}: holds more than {MOST_FOLDERS:,} folders; give the one that holds the dataset")
        yield folder
        waiting += [path for path in reversed(list_folder(folder)) if enter(path)]


def glance(root: Path) -> Iterator[Path]:
    """The folder and the nearest ones below it, in which a dataset shows what it is: soon done, wherever it begins.

    Down to `DEEPEST` levels, of each folder the first few, until `GLANCED` entries were seen. What cannot be read is
    passed over.
    """
    level, left = [Path(root)] if is_folder(Path(root)) else [], GLANCED
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            try:
                inside = list_folder(folder)
            except InputError:
                continue
            yield folder
            left -= len(inside)
            if left < 0:
                return
            below += itertools.islice(filter(is_folder, inside), _FEW)
        level = below
