"""A folder packed into pieces that are small enough to come back, and unpacked from them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

PIECE = 15 << 20
MOST = 4
"""More do not come back."""
_LEFT_BEHIND = {".log", ".lock", ".gch"}


def pack(folder: Path, out: Path, piece: int = PIECE, most: int = MOST) -> tuple[int, int]:
    """Pack what is below `folder`, logs aside, into `out/cache-N`; returns how many pieces, and their bytes.

    Raises:
        ValueError: it takes more than `most` pieces; then there are none.
    """
    out.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz", preset=6) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or (path.is_file() and path.suffix not in _LEFT_BEHIND):
                tar.add(path, path.relative_to(folder), recursive=False)
    packed = stream.getvalue()
    parts = [packed[start : start + piece] for start in range(0, len(packed), piece)]
    if len(parts) > most:
        raise ValueError(f"{len(packed) / 2**20:.0f} MiB are more than {most} pieces of {piece / 2**20:.0f} MiB")
    for number, part in enumerate(parts):
        (out / f"cache-{number}").write_bytes(part)
    return len(parts), len(packed)


def found(folder: Path) -> Iterator[Path]:
    """The pieces in `folder`, in order."""
    return iter(sorted(folder.glob("cache-[0-9]"), key=lambda path: path.name))


def unpack(pieces: Path, folder: Path) -> int:
    """Unpack the pieces in the folder `pieces`, if there are any; returns the number of files."""
    packed = b"".join(path.read_bytes() for path in found(pieces))
    if not packed:
        return 0
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as tar:
        members = tar.getmembers()
        tar.extractall(folder)
    return len(members)
