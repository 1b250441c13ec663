"""Several samples of one mask, the members of an ensemble, made one probability.

Members are float arrays with values in [0, 1]; the first axis counts them. A member's own mask is where
it exceeds one half; of several classes, where its class is the likeliest.
"""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np

from medsegdiff.masks.decision import THRESHOLD, decide
from medsegdiff.masks.uncertainty import PackedMasks, pairwise_dice


def mean(members: np.ndarray) -> np.ndarray:
    """Mean of the members: (K, ...) to float32 (...)."""
    return np.mean(members, axis=0, dtype=np.float64).astype(np.float32)


def staple(members: np.ndarray) -> np.ndarray:
    """STAPLE's probability of the true mask, every member's mask being a rater's: (K, H, W) to float32 (H, W).

    Expectation maximisation over the raters' sensitivity and specificity (Warfield et al. 2004), by SimpleITK.
    Where all masks are alike there is nothing to estimate: the result is that mask.
    """
    masks = members > THRESHOLD
    if (masks == masks[0]).all():
        return masks[0].astype(np.float32)
    import SimpleITK

    raters = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    probability = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(raters, 1.0))
    return np.clip(probability, 0, 1).astype(np.float32)


def published(members: np.ndarray) -> np.ndarray:
    """The rule of the published code: (K, ...) to float32 (...).

    The code names it STAPLE, but its result is the mean over members of (member x m), m being their
    mean: that is m squared. A threshold of 0.5 on it is one of 0.71 on the mean.
    """
    return mean(members) ** 2


def published_blend(cal: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The published code's blend of the conditioning network's mask with a sampled one, in [0, 1].

    Where the two agree (soft Dice of `cal` and `sample > 0`, over the whole batch, at least 0.65) their
    mean, else `cal` with a quarter of `sample` added.

    Args:
        cal: (N, M, H, W) in [0, 1]
        sample: (N, M, H, W), as the sampler left it
    """
    positive = sample > 0
    common, areas = (positive * cal).sum(dtype=np.float64), (positive + cal).sum(dtype=np.float64)
    blend = 0.5 * cal + 0.5 * sample if 2 * common >= 0.65 * areas else cal + 0.25 * sample
    return np.clip(blend, 0, 1).astype(np.float32)


class Ensemble:
    """Statistics of the members of one image, (M, H, W) each, added one by one.

    Mean and standard deviation run along (Welford's recurrence, Technometrics 4, 1962, in float64). What needs
    all members, STAPLE and their agreement, needs their masks alone: one bit a pixel is kept of each.
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
            self._masks = [PackedMasks() for _ in member]
        elif member.shape != self._mean.shape:
            raise ValueError(f"a member of shape {member.shape} among members of {self._mean.shape}")
        self.count += 1
        before = member - self._mean
        self._mean += before / self.count
        self._squares += before * (member - self._mean)
        classes = decide(member)
        for label, masks in enumerate(self._masks, start=1):
            masks.add(classes == label)

    @property
    def mean(self) -> np.ndarray:
        """(M, H, W) float32: mean of the members."""
        return self._mean.astype(np.float32)

    @property
    def std(self) -> np.ndarray:
        """(M, H, W) float32: population standard deviation of the members (0 for a single one)."""
        return np.sqrt(self._squares / self.count).astype(np.float32)

    @property
    def masks(self) -> np.ndarray:
        """(K, M, H, W) bool: the members' masks."""
        return np.stack([list(masks) for masks in self._masks], axis=1)

    @property
    def agreement(self) -> Optional[float]:
        """Expected Dice of two members' masks, the mean over channels; None for a single member.

        Two empty masks have Dice 1: members that all see nothing agree. `empty` tells such an ensemble from others.
        """
        if self.count < 2:
            return None
        return float(np.mean([pairwise_dice(masks) for masks in self._masks]))

    @property
    def empty(self) -> int:
        """How many members have no foreground, in any channel."""
        return sum(not any(bits.any() for bits in member) for member in zip(*(masks.bits for masks in self._masks)))

    @property
    def unsettled(self) -> float:
        """Relative standard error of the mean mask: the sum of its pixels' standard errors over its area.

        The area counts as one pixel where it is less. Infinite for a single member.
        """
        if self.count < 2:
            return float("inf")
        errors = np.sqrt(self._squares / (self.count - 1) / self.count)
        return float(errors.sum() / max(self._mean.sum(), 1.0))

    def fuse(self, rule: str) -> np.ndarray:
        """(M, H, W) float32 in [0, 1]: the members made one by a rule of `RULES`."""
        return RULES[rule](self)


def _staple_of(ensemble: Ensemble) -> np.ndarray:
    return np.stack([staple(ensemble.masks[:, channel]) for channel in range(len(ensemble.mean))])


RULES: dict[str, Callable[[Ensemble], np.ndarray]] = {
    "mean": lambda ensemble: ensemble.mean,
    "vote": lambda ensemble: mean(ensemble.masks),
    "staple": _staple_of,
    "published": lambda ensemble: ensemble.mean**2,
}
