"""Random numbers by name: a number depends only on its key, not on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: str | int) -> np.random.Generator:
    """The random stream that belongs to `key`, such as `(seed, "noise", image_id, member, step)`.

    Counter-based (Philox 4x64, Salmon et al. 2011), keyed by 128 bits of the key's BLAKE2b hash, so
    streams are independent and the same on every machine, in any order and any batch.
    """
    text = "\x1f".join(f"int:{int(part)}" if isinstance(part, (int, np.integer)) else f"str:{part}" for part in key)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
