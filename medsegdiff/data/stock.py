"""What the cache holds: listing and clearing it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from medsegdiff.base import system
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import opened, remove, size
from medsegdiff.base.reading import read_json
from medsegdiff.data.cache import DATASETS, ENTRIES, INDEX, LOCK


class Stock(NamedTuple):
    """What there is."""

    lines: list[str]
    """One for each dataset, the last used one first."""
    entries: int
    size: int
    """Of all entries, in bytes."""


def listing(folder: Path) -> Stock:
    """What the cache `folder` holds."""
    found = []
    for path in (folder / DATASETS).glob("*.json"):
        try:
            content, used = read_json(path), path.stat().st_mtime
            taken = sum(size(folder / name) for name in content["entries"])
            line = (
                f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}  {taken / 2**20:8.1f} MiB  "
                f"{len(content['entries'])} cases, {content['slices']} slices, {content['size']} x {content['size']}, "
                f"of {content['folder']}"
            )
            found.append((used, line))
        except (InputError, OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or being written
    entries = list((folder / ENTRIES).glob("*/*.safetensors"))
    return Stock([line for _, line in sorted(found, reverse=True)], len(entries), sum(map(size, entries)))


def clear(folder: Path) -> int:
    """Empty the cache and touch nothing else; returns the number of bytes. Trainings prepare again what they need.

    Raises:
        InputError: another process is preparing a dataset there, or the disk refuses.
    """
    lock = folder / ENTRIES / LOCK
    if not lock.exists():
        return 0
    with opened(lock) as handle:
        try:
            system.lock(handle, wait=False)
        except BlockingIOError:
            raise InputError(f"{folder}: another process prepares a dataset there; wait for its end") from None
        except OSError:  # a file system without locks
            pass
        freed = 0
        for path in _own(folder):
            freed += sum(map(size, [path, *path.rglob("*")]))
            remove(path)
    remove(lock)  # now: Windows keeps what is open
    for kept in [*(folder / ENTRIES).glob("[0-9a-f][0-9a-f]"), folder / ENTRIES, folder / DATASETS]:
        with suppress(OSError):  # of others there is something in it
            kept.rmdir()
    return freed


def _own(folder: Path) -> Iterator[Path]:
    """Only files named as `prepare` names them: other files may lie beside them."""
    for path in (folder / DATASETS).glob("*"):
        if re.fullmatch(r"\.?[0-9a-f]{40}(\.json|\.lock)?", path.name):  # a folder is an earlier version's
            yield path
    yield folder / ENTRIES / INDEX
    for path in (folder / ENTRIES).glob("*/*"):
        if re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{38}\.safetensors", f"{path.parent.name}/{path.name}"):
            yield path
