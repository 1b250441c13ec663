"""Archives of others, unpacked so that nothing can land outside a folder, fill the disk or be more than a file."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Callable, NamedTuple

from medsegdiff.base.errors import InputError

_MOST_FILES = 200_000
_MOST_GROWTH = 50  # times the archive's size: compressed images grow little, what is made to fill a disk a thousandfold
_MOST_FREE = 1 << 24  # bytes that any archive may hold
_REFUSED = "it is not unpacked: the archive is not what it should be"


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder", or what it is else
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip or tar file into `folder`, which exists; returns the number of files.

    A top folder that holds everything is left out, and so are hidden files and those that macOS adds.

    Raises:
        InputError: it is damaged or encrypted, or a member is a link or device, leads out of the folder, comes twice or
            has a name that cannot be written; or there are too many, or they unpack to far more than the archive's
            size.
    """
    try:
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
            members = list(_zipped(opened) if isinstance(opened, zipfile.ZipFile) else _tarred(opened))
            places = _places(archive, members)
            for member, place in places:
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                if target.stat().st_size != member.size:
                    raise InputError(f"{archive}: {member.name!r} is cut off; download the archive again")
            return len(places)
    except InputError:
        raise
    except Exception as error:  # on damaged archives the decoders raise nearly anything
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{archive}: damaged, or no archive that can be read ({error}); download it again") from error


def _zipped(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = "folder" if info.is_dir() else "a link" if stat.S_ISLNK(info.external_attr >> 16) else "file"
        yield _Member(info.filename, info.file_size, kind, lambda info=info: opened.open(info))


def _tarred(opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        kind = "folder" if info.isdir() else "file" if info.isreg() else "a link or a device"
        yield _Member(info.name, info.size, kind, lambda info=info: opened.extractfile(info))


def _places(archive: Path, members: list[_Member]) -> list[tuple[_Member, PurePosixPath]]:
    """The files with their places in the folder."""
    places: dict[PurePosixPath, _Member] = {}
    for member in members:
        path, why = PurePosixPath(member.name), ""
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
            why = "leads out of the folder, or cannot be a name"
        elif member.kind not in ("file", "folder"):
            why = f"is {member.kind}"
        elif member.kind == "file" and path in places:
            why = "comes twice"
        if why:
            raise InputError(f"{archive}: {member.name!r} {why}; {_REFUSED}")
        if member.kind == "file" and not any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            places[path] = member
    total = sum(member.size for member in places.values())
    if not places:
        raise InputError(f"{archive}: holds no file; download it again")
    packed = archive.stat().st_size
    if len(places) > _MOST_FILES or total > max(_MOST_FREE, _MOST_GROWTH * packed):
        raise InputError(
            f"{archive}: {len(places)} files of {total >> 20} MB in an archive of {packed >> 10} KB; {_REFUSED}"
        )
    tops = {path.parts[0] for path in places if len(path.parts) > 1} | {"" for path in places if len(path.parts) == 1}
    strip = len(tops) == 1 and "" not in tops
    return [(member, PurePosixPath(*path.parts[strip:])) for path, member in places.items()]
