"""Whether a cache entry is still what was written: checksums of its files, kept in its `meta.json`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff.base.errors import InputError
from medsegdiff.data.digests import file_digest


def checksums(entry: Path, meta: Mapping[str, Any]) -> dict[str, str]:
    """BLAKE2b (hex) of an entry's array files, by name, and of what its `meta` says of the images.

    Raises:
        InputError: a file cannot be read.
    """
    sums = {path.name: file_digest(path) for path in sorted(entry.glob("*.npy"))}
    text = json.dumps([meta["ids"], meta["original_sizes"]])
    return {**sums, "meta": hashlib.blake2b(text.encode(), digest_size=32).hexdigest()}


def is_whole(entry: Path) -> bool:
    """Whether the entry's files have the checksums that were written with them."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        return meta["checksums"] == checksums(entry, meta)
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


class Check:
    """`is_whole`, found out in a thread of its own."""

    def __init__(self, entry: Path) -> None:
        self.entry, self._whole = entry, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._whole = is_whole(self.entry)

    def passed(self) -> bool:
        """Whether the entry is whole; waits until that is known."""
        self._thread.join()
        return self._whole
