"""A checkpoint's `state.json`, which holds the checksums of the other files and, in its last line, one of itself."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import hashed
from medsegdiff.base.reading import read_text, reading

STATE = "state.json"
FORMAT = 2
"""1 had no checksum of the state itself."""
FOLDER = re.compile(r"step-(\d+)")
"""A checkpoint's name."""
_SEAL = ',\n "checksum": "'


def digest(path: Path) -> str:
    """The checksum of a file."""
    with reading(path) as file:
        return hashed(file)


def sealed(text: str) -> str:
    """The JSON object `text` with a checksum of it as its last member."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f'{text[:-2]}{_SEAL}{digest}"\n}}'


def read_state(path: Path) -> dict[str, Any]:
    """`state.json` of the checkpoint folder `path`.

    Raises:
        InputError: it is missing or damaged, or it is that of another step's folder.
    """
    file = path / STATE
    if not file.exists():
        raise InputError(f"{path}: not a checkpoint: it has no {STATE}; give a folder step-NNNNNN")
    try:
        text = read_text(file)
        state = json.loads(text)
        kinds = {"step": int, "config": dict, "training": dict, "dataset": str, "checksums": dict}
        state = {**state, **{name: kind(state[name]) for name, kind in kinds.items()}}
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise InputError(f"{file}: damaged; use another checkpoint") from None
    if state.get("format", 1) not in range(1, FORMAT + 1):
        raise InputError(f"{file}: written by a newer medsegdiff; update this one")
    # Either word says that there is a checksum: damage to one of them cannot hide it.
    if ("format" in state or "checksum" in state) and text != sealed(text.rpartition(_SEAL)[0] + "\n}"):
        raise InputError(f"{file}: damaged (its checksum differs); use another checkpoint")
    named = FOLDER.fullmatch(path.name)
    if named and int(named.group(1)) != state["step"]:
        raise InputError(f"{file}: belongs to step {state['step']}, not to this folder; use another checkpoint")
    return state
