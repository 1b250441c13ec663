"""What the cache holds: listing and clearing it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import writing
from medsegdiff.data.cache import DATASETS, ENTRIES, LOCK


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
            content, used = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
            size = sum(_size(folder / name) for name in content["entries"])
            line = (
                f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}  {size / 2**20:8.1f} MiB  "
                f"{len(content['entries'])} cases, {content['slices']} slices, {content['size']} x {content['size']}, "
                f"of {content['folder']}"
            )
            found.append((used, line))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or being written
    entries = list((folder / ENTRIES).glob("*/*.safetensors"))
    return Stock([line for _, line in sorted(found, reverse=True)], len(entries), sum(map(_size, entries)))


def clear(folder: Path) -> int:
    """Remove all that is kept; how many bytes that were. Trainings that use it make again what they need.

    Raises:
        InputError: another process is preparing a dataset there, or the disk refuses.
    """
    lock = folder / ENTRIES / LOCK
    if not lock.exists():
        return 0
    with writing(lock):
        handle = os.open(lock, os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process prepares a dataset there; wait for its end") from None
        size = sum(_size(path) for name in (DATASETS, ENTRIES) for path in (folder / name).rglob("*"))
        for name in (DATASETS, ENTRIES):
            shutil.rmtree(folder / name, ignore_errors=True)
        return size
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
