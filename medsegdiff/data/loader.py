"""Training batches: which images each step sees is a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Optional, Protocol

import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.data.augment import augment


class Dataset(Protocol):
    """Images with masks at network resolution, such as `cache.Prepared`."""

    @property
    def ids(self) -> list[str]:
        """The images' names."""

    @property
    def fingerprint(self) -> str:
        """A digest of the content."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (C, S, S) in [0, 1]."""

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (M, S, S) of 0 and 1."""


class Batch(NamedTuple):
    """Images and masks of one training step."""

    images: np.ndarray
    """(N, C, S, S) float32 in [0, 1]."""
    masks: np.ndarray
    """(N, M, S, S) float32 of 0 and 1."""


class Batches:
    """Endless shuffled epochs over a prepared dataset, cut into batches; an epoch's rest joins the next.

    Of each batch only `rows` are handed out, where they are given. If `augmented`, each sample is a variant drawn by
    the seed, the step and its place in the batch; for `variants` see `augment.augment`.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        augmented: bool = False,
        rows: Optional[Sequence[int]] = None,
        **variants: float,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.augmented, self.variants = augmented, variants
        self.rows = range(batch_size) if rows is None else rows
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return generator(self.seed, "order", epoch).permutation(len(self.dataset))

    def indices(self, step: int) -> list[int]:
        """The images of training step `step`, counted from 0."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [int(self._order(p // len(self.dataset))[p % len(self.dataset)]) for p in positions]

    def ids(self, step: int) -> list[str]:
        """The names of all images of training step `step`, whatever the rows."""
        return [self.dataset.ids[index] for index in self.indices(step)]

    def __getitem__(self, step: int) -> Batch:
        images, masks, indices = [], [], self.indices(step)
        for sample in self.rows:
            image, mask = self.dataset.image(indices[sample]), self.dataset.mask(indices[sample])
            if self.augmented:
                rng = generator(self.seed, "augment", step, sample)
                image, mask = augment(image, mask, rng, **self.variants)
            images.append(image)
            masks.append(mask)
        return Batch(np.stack(images), np.stack(masks))
