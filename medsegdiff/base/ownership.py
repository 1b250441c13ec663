"""What a command wrote into a folder that the user named; nothing else there is overwritten or deleted.

`.medsegdiff.jsonl` in the folder has one JSON object a line for each group of files that were written together:
`{"by": "evaluate", "files": {"metrics.csv": "DIGEST"}, "about": {}}`. A file is a command's own where that command
wrote these very bytes under this name; the digest (BLAKE2b, 128 bits) of one that grows, as a log does, is null.
Lines are added and never changed, each before its files get their names, so what a crash leaves behind is known.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional

from medsegdiff.base import system
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import fsync, make_folder, opened, remove, writing

MANIFEST = ".medsegdiff.jsonl"
_LOCK = ".lock"  # in a stage: whoever writes there holds it
_STAGE = re.compile(r"\.[0-9a-f]{32}\.tmp")


class Group(NamedTuple):
    """Files that were written together."""

    files: dict[str, Optional[str]]
    """Digests by name, relative to the folder."""
    about: dict[str, Any]
    """What the command remembers of them."""


class Ledger:
    """What the command `by` wrote into `folder`, which need not exist yet."""

    def __init__(self, folder: Path, by: str) -> None:
        self.folder, self.by = Path(folder), by
        self.groups: list[Group] = []
        """Oldest first."""
        self._known: dict[str, set[Optional[str]]] = {}
        self._alone = threading.Lock()
        self._cleared = False  # of abandoned stages
        manifest = self.folder / MANIFEST
        if manifest.is_file() and not manifest.is_symlink():
            for line in manifest.read_bytes().splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Learn from a line of the manifest; one that a crash cut short, or that is not ours, says nothing."""
        try:
            found = json.loads(line)
            if found["by"] == self.by:
                files = {name: None if digest is None else str(digest) for name, digest in found["files"].items()}
                self.groups.append(Group(files, dict(found["about"])))
                for name, digest in files.items():
                    self._known.setdefault(name, set()).add(digest)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return

    def owns(self, name: str) -> bool:
        """Whether this command wrote the file `name` as it is now; not where it, or a folder above it, is a link."""
        path, digests = self.folder / name, self._known.get(name)
        if not digests or self._link_above(name) or path.is_symlink() or not path.is_file():
            return False
        return None in digests or digest(path) in digests

    def _link_above(self, name: str) -> bool:
        return any((self.folder / above).is_symlink() for above in Path(name).parents if above.name)

    def check(self, names: Iterable[str]) -> None:
        """Refuse to touch any of the files `names` that exists and is not this command's own.

        Raises:
            InputError: there is one.
        """
        for name in names:
            path = self.folder / name
            if self._link_above(name) or (os.path.lexists(path) and not self.owns(name)):
                raise InputError(
                    f"{path}: not written by {self.by}, or changed since, and would be lost; "
                    "move it elsewhere, or write to another folder"
                )

    @contextmanager
    def together(
        self, last: str, instead_of: Iterable[str] = (), about: Optional[dict[str, Any]] = None
    ) -> Iterator[Path]:
        """Give an empty folder to write files to; all of them move into this one when the block ends well.

        If the block fails, nothing is changed. Several threads may write groups at the same time.

        Args:
            last: the file that moves last, and whose earlier version goes first: where it is, the others are, too.
            instead_of: names of files that must not stay.
            about: what to remember of them, ready for JSON.

        Raises:
            InputError: a file in the way is not this command's own, or the disk refuses.
        """
        stage = make_folder(self.folder) / f".{uuid.uuid4().hex}.tmp"
        try:
            with writing(self.folder), ExitStack() as stack:
                with self._alone:  # a stage that is not locked yet passes for an abandoned one
                    if not self._cleared:
                        _remove_abandoned(self.folder)
                    self._cleared = True
                    stack.enter_context(_made(stage))
                yield stage
                names = [path.relative_to(stage).as_posix() for path in sorted(stage.rglob("*")) if path.is_file()]
                names.remove(_LOCK)
                outdated = [last, *(name for name in instead_of if name != last)]
                self.check({*names, *outdated})
                for name in names:
                    fsync(stage / name)
                self._note({name: digest(stage / name) for name in names}, about or {})
                for name in outdated:
                    (self.folder / name).unlink(missing_ok=True)
                for name in sorted(names, key=lambda name: name == last):
                    (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    system.replace(stage / name, self.folder / name)
                    fsync((self.folder / name).parent)
        finally:
            remove(stage)

    def claim(self, names: Iterable[str], grows: bool = False) -> None:
        """Take the files `names` for this command's own from now on: as they are, or whatever they hold if they grow.

        Raises:
            InputError: the disk refuses.
        """
        found = {name: None if grows else digest(self.folder / name) for name in names}
        if any(value not in self._known.get(name, ()) for name, value in found.items()):
            with writing(self.folder):
                self._note(found, {})

    def remove(self, names: Iterable[str]) -> None:
        """Remove the files `names`, as far as they are there, all or none.

        Raises:
            InputError: one is not this command's own, or the disk refuses.
        """
        names = list(names)
        self.check(names)
        with writing(self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def _note(self, files: dict[str, Optional[str]], about: dict[str, Any]) -> None:
        line = json.dumps({"by": self.by, "files": files, "about": about}).encode()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | system.NO_LINK | system.AS_IT_IS
        with self._alone:  # else two would see the same end of the manifest
            handle = os.open(self.folder / MANIFEST, flags, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.folder / MANIFEST))
                # A line that a crash cut short must not swallow this one.
                size = os.fstat(handle).st_size
                os.lseek(handle, max(0, size - 1), os.SEEK_SET)
                torn = size and os.read(handle, 1) != b"\n"
                whole = b"\n" * bool(torn) + line + b"\n"
                if os.write(handle, whole) < len(whole):  # at once: other processes add theirs
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / MANIFEST))
                os.fsync(handle)
            finally:
                os.close(handle)
            self._take(line)


@contextmanager
def _made(stage: Path) -> Iterator[None]:
    """Make a stage and hold it within the block, or until the process ends."""
    stage.mkdir()
    with opened(stage / _LOCK) as handle:
        with suppress(OSError):  # where there are no locks, a stage that a killed process left stays
            system.lock(handle)
        yield


def _remove_abandoned(folder: Path) -> None:
    """Remove the stages of killed processes, and what they left of `make_folder`'s looks, which minds no loss."""
    for stage in folder.glob(".*.tmp"):
        if _STAGE.fullmatch(stage.name) and not stage.is_symlink():
            with suppress(OSError, InputError):
                if stage.is_file():
                    stage.unlink()
                    continue
                with opened(stage / _LOCK) as handle:  # closed before it is removed: Windows keeps what is open
                    system.lock(handle, wait=False)
                remove(stage)


def digest(path: Path, hasher: Any = None) -> str:
    """What `hashed` makes of a file's bytes."""
    with path.open("rb") as file:
        return hashed(file, hasher)


def hashed(file: IO[bytes], hasher: Any = None) -> str:
    """What a hash function of `hashlib`, by default 128 bits of BLAKE2b, makes of an open file, in hexadecimal."""
    hasher = hasher or hashlib.blake2b(digest_size=16)
    while block := file.read(1 << 22):
        hasher.update(block)
    return hasher.hexdigest()
