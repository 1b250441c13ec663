"""What a sampler needs of a network, on any backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from medsegdiff.diffusion.process import Output

Condition = Any
"""What a denoiser computes of images once, a row for each; only the denoiser that made it looks inside."""


class Denoiser(Protocol):
    """A trained network, ready to sample with."""

    @property
    def backend(self) -> str:
        """What computes it, with its version."""

    @property
    def mask_shape(self) -> tuple[int, int, int]:
        """(M, S, S): foreground classes, and the side of the square that the network sees."""

    def encode(self, images: np.ndarray) -> Condition:
        """What the network needs of images (N, C, S, S), float32 in [0, 1]; computed once per image."""

    def gather(self, parts: Sequence[Condition], rows: Sequence[int]) -> Condition:
        """The condition of a batch: the rows `rows`, which may repeat, of all the rows of `parts` in order."""

    def denoise(self, mask_t: np.ndarray, t: float, condition: Condition) -> Output:
        """What the network says of noisy masks at one timestep.

        Args:
            mask_t: (N, M, S, S) float32
            t: the timestep, as the network was trained with, possibly fractional
            condition: N rows, see `gather`
        """
