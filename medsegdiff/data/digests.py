"""Content digests of files, remembered so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing
from medsegdiff.base.ownership import hashed
from medsegdiff.base.reading import reading
from medsegdiff.base.screen import track
from medsegdiff.io.folders import list_folder

# A file changed this recently may change again within one tick of a coarse file system clock.
_SETTLED_NS = 2_000_000_000


def digests(paths: Iterable[Path], index: Path, progress: bool = True) -> dict[Path, str]:
    """BLAKE2b digests (hex) of the files' bytes; of a folder, as of a DICOM series, of those of its files.

    `index` is a JSON file that remembers them by path, size, times and inode; it may be absent, and
    losing it costs no more than reading the files again.

    Raises:
        InputError: a file cannot be read, or the index not written.
    """
    inside = {path: [path] for path in paths}
    for folder in filter(Path.is_dir, inside):
        inside[folder] = [path for path in list_folder(folder) if path.is_file()]
    found = _of_files([file for files in inside.values() for file in files], index, progress)
    for path, files in inside.items():
        if files != [path]:
            joined = "".join(found[file] for file in files)
            found[path] = hashlib.blake2b(joined.encode(), digest_size=32).hexdigest()
    return {path: found[path] for path in inside}


def _of_files(paths: Iterable[Path], index: Path, progress: bool) -> dict[Path, str]:
    known = _load(index)
    result: dict[Path, str] = {}
    unknown: dict[Path, list[int]] = {}
    for path in paths:
        stamp = _stamp(path)
        entry = known.get(str(path.absolute()))
        if entry is not None and entry[0] == stamp:
            result[path] = entry[1]
        else:
            unknown[path] = stamp
    if not unknown:
        return result
    pool = ThreadPoolExecutor(2)
    try:
        found = pool.map(file_digest, unknown)
        bar = track(found, len(unknown), "reading", "file", shown=progress)
        result.update(zip(unknown, bar))
    finally:
        pool.shutdown(cancel_futures=True)
    now = time.time_ns()
    settled = {
        str(path.absolute()): [stamp, result[path]]
        for path, stamp in unknown.items()
        if now - max(stamp[1:3]) > _SETTLED_NS
    }
    if settled:
        with replacing(index) as beside:
            # Read again: another process may have added its own meanwhile.
            beside.write_text(json.dumps({**_load(index), **settled}), encoding="utf-8")
    return result


def _stamp(path: Path) -> list[int]:
    """What changes when a file's content does, as far as its inode can tell."""
    with _reading(path):
        stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def file_digest(path: Path) -> str:
    """The BLAKE2b digest (hex) of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    with _reading(path), reading(path) as file:
        return hashed(file, hashlib.blake2b(digest_size=32))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from error


def _load(index: Path) -> dict[str, list]:
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        return {path: [list(stamp), str(digest)] for path, (stamp, digest) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
