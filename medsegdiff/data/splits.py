"""Holding images out of training, for validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.data.loader import Dataset


class Subset:
    """Some images of a dataset, under a fingerprint of their own."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.ids = [dataset.ids[index] for index in self.indices]
        text = json.dumps([dataset.fingerprint, self.ids])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (C, S, S) in [0, 1]."""
        return self.dataset.image(self.indices[index])

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (M, S, S) of 0 and 1."""
        return self.dataset.mask(self.indices[index])


def count_held_out(images: int, fraction: float) -> int:
    """How many of so many images `hold_out` takes: at least one.

    Raises:
        InputError: nothing would be left to train on.
    """
    count = max(1, round(fraction * images))
    if count >= images:
        raise InputError(
            f"`val_fraction` {fraction}: of {images} images {count} would be held out, which leaves none to train "
            "on; give a smaller fraction, or more images"
        )
    return count


def hold_out(dataset: Dataset, fraction: float, most: int = 0) -> tuple[Subset, Subset]:
    """Split `dataset` into (training, validation) images.

    Which images are held out depends on their names and their number alone: not on a seed, the order of the files
    or where they lie.

    Args:
        dataset: what to split; it stays as it is
        fraction: share of the images that is held out, between 0 and 1
        most: take no more than so many of the held-out images for validation; the others are left out of both, so
            that another number does not change what is trained on; 0: all

    Raises:
        InputError: nothing would be left to train on.
    """
    count = count_held_out(len(dataset), fraction)
    ranked = sorted(range(len(dataset)), key=lambda index: generator("validation", dataset.ids[index]).random())
    held_out = ranked[:count]
    return Subset(dataset, sorted(ranked[count:])), Subset(dataset, held_out[: most or None])
