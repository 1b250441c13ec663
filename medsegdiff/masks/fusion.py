"""Several samples of one mask, the members of an ensemble, made one probability."""

from __future__ import annotations

import numpy as np


def mean(members: np.ndarray) -> np.ndarray:
    """Mean over the first axis: members (M, ...) with values in [0, 1] to float32 (...)."""
    return np.mean(members, axis=0, dtype=np.float64).astype(np.float32)


def published(members: np.ndarray) -> np.ndarray:
    """The rule of the published code: members (M, ...) with values in [0, 1] to float32 (...).

    The code names it STAPLE, but its result is the mean over members of (member x m), m being their
    mean: that is m squared. A threshold of 0.5 on it is one of 0.71 on the mean.
    """
    return mean(members) ** 2


def published_blend(cal: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The published code's blend of the conditioning network's mask with a sampled one, in [0, 1].

    Where the two agree (soft Dice of `cal` and `sample > 0`, over the whole batch, at least 0.65) their
    mean, else `cal` with a quarter of `sample` added.

    Args:
        cal: (N, 1, H, W) in [0, 1]
        sample: (N, 1, H, W), as the sampler left it
    """
    positive = sample > 0
    agreement = 2 * (positive * cal).sum(dtype=np.float64) / (positive + cal).sum(dtype=np.float64)
    blend = 0.5 * cal + 0.5 * sample if agreement >= 0.65 else cal + 0.25 * sample
    return np.clip(blend, 0, 1).astype(np.float32)


class Ensemble:
    """Mean and standard deviation of members added one by one, in memory that does not grow with them.

    Welford's recurrence (Technometrics 4, 1962), in float64; the standard deviation is the population's.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, member: np.ndarray) -> None:
        """Take in one member, values in [0, 1].

        Raises:
            ValueError: its shape is not that of the first.
        """
        member = np.asarray(member, dtype=np.float64)
        if not self.count:
            self._mean = np.zeros_like(member)
            self._squares = np.zeros_like(member)
        elif member.shape != self._mean.shape:
            raise ValueError(f"a member of shape {member.shape} among members of {self._mean.shape}")
        self.count += 1
        before = member - self._mean
        self._mean += before / self.count
        self._squares += before * (member - self._mean)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the members, float32.

        Raises:
            ValueError: there is no member yet.
        """
        self._need_member()
        return self._mean.astype(np.float32)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation of the members, float32 (0 for a single one).

        Raises:
            ValueError: there is no member yet.
        """
        self._need_member()
        return np.sqrt(self._squares / self.count).astype(np.float32)

    def _need_member(self) -> None:
        if not self.count:
            raise ValueError("the ensemble has no member yet")
