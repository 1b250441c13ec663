"""How far to trust a prediction: deviation of the members, calibration of the probability, order of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

CALIBRATION_BINS = 15

_BYTES_AT_ONCE = 1 << 15  # of each packed mask: with 25 of them, 26 MB of pixels as float32
_PIXELS_AT_ONCE = 1 << 20


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of each value taken as the probability of a binary event, in bits.

    Args:
        probability: float (...) in [0, 1]; channels are binary events of their own.

    Returns:
        float32 (...) in [0, 1]: 0 for a certain value, 1 for one half (Shannon 1948).
    """
    p = np.asarray(probability, dtype=np.float32)
    bits = np.zeros_like(p)
    for chance in (p, 1 - p):
        # 0 log 0 is 0, its limit; the smallest float32 in its place makes the product that.
        bits -= chance * np.log2(np.maximum(chance, np.finfo(np.float32).tiny))
    return np.clip(bits, 0, 1)  # rounding may step over the ends


class PackedMasks:
    """Boolean masks of one shape, added one by one and kept at a bit a pixel; iterating gives them back."""

    def __init__(self, masks: Iterable[np.ndarray] = ()) -> None:
        self.shape: tuple[int, ...] = ()
        self.bits: list[np.ndarray] = []  # uint8 (bytes,) of each; the last byte is filled up with zeros
        for mask in masks:
            self.add(mask)

    def add(self, mask: np.ndarray) -> None:
        """Take in one more, bool (H, W).

        Raises:
            ValueError: it is not boolean, or not of the first one's shape.
        """
        if mask.dtype != bool or (self.bits and mask.shape != self.shape):
            raise ValueError(f"masks must be boolean and of one shape, not {mask.dtype} {mask.shape}")
        self.shape = mask.shape
        self.bits.append(np.packbits(mask))

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[np.ndarray]:
        for bits in self.bits:
            yield np.unpackbits(bits, count=math.prod(self.shape)).reshape(self.shape).astype(bool)

    def shared(self) -> np.ndarray:
        """int64 (K, K): how many pixels masks have in common two by two; on the diagonal, how many each has."""
        counts = np.zeros((len(self), len(self)), dtype=np.int64)
        for start in range(0, self.bits[0].size if self.bits else 0, _BYTES_AT_ONCE):
            part = np.stack([bits[start : start + _BYTES_AT_ONCE] for bits in self.bits])
            pixels = np.unpackbits(part, axis=1).astype(np.float32)
            counts += (pixels @ pixels.T).astype(np.int64)  # exact: sums below 2^24
        return counts


def pairwise_dice(masks: Iterable[np.ndarray]) -> float:
    """Mean Dice over all unordered pairs of masks; a pair of empty masks has Dice 1.

    Args:
        masks: two or more, bool (H, W) each; taken one by one.

    Raises:
        ValueError: there are fewer than two, one is not boolean, or shapes differ.
    """
    shared = PackedMasks(masks).shared()
    if len(shared) < 2:
        raise ValueError("a pair needs at least two masks")
    sizes = shared.diagonal()
    dice = _ratio(2 * shared, sizes[:, None] + sizes)
    return float(dice[np.triu_indices(len(shared), k=1)].mean())


def generalised_energy_distance(members: Iterable[np.ndarray], truth: np.ndarray) -> float:
    """Squared distance of the members' distribution from the ground truth, in [0, 2]; 0 where all equal it.

    GED^2 = 2 E d(S, Y) - E d(S, S') - E d(Y, Y') with d = 1 - IoU, and d = 0 for two empty masks (Kohl et
    al., A Probabilistic U-Net, 2018). Expectations are plug-in estimates: means over all ordered pairs, a
    member with itself among them, which keeps the result from falling below 0. They count members as
    less diverse than they are the fewer there are: compare results of equally many members only. With one
    ground truth the last term is 0.

    Args:
        members: one or more, bool (H, W) each; taken one by one.
        truth: bool (H, W).

    Raises:
        ValueError: there is no member, a mask is not boolean, or shapes differ.
    """
    shared = PackedMasks(itertools.chain([truth], members)).shared()
    if len(shared) < 2:
        raise ValueError("the distance needs at least one member")
    sizes = shared.diagonal()
    distance = 1 - _ratio(shared, sizes[:, None] + sizes - shared)
    return float(2 * distance[0, 1:].mean() - distance[1:, 1:].mean())


def brier(probability: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared difference of probability and ground truth over pixels, in [0, 1], best 0 (Brier 1950).

    Args:
        probability: float (H, W) in [0, 1].
        truth: bool (H, W).

    Raises:
        ValueError: the shapes differ.
    """
    _need_shape(probability, truth)
    return float(np.mean((probability - truth.astype(np.float32)) ** 2, dtype=np.float64))


def calibration_histogram(probability: np.ndarray, truth: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """One image's part in `expected_calibration_error`: histograms over bins of probability of equal width.

    They are divided by the number of pixels, so that images weigh the same whatever their resolution.
    A bin has its lower end, the last one both.

    Args:
        probability: float (H, W) in [0, 1].
        truth: bool (H, W).
        bins: how many.

    Returns:
        float64 (3, bins): share of the pixels, sum of their probability, sum of their truth.

    Raises:
        ValueError: the shapes differ.
    """
    _need_shape(probability, truth)
    histogram = np.zeros((3, bins))
    flat, true = probability.reshape(-1), truth.reshape(-1)
    for start in range(0, flat.size, _PIXELS_AT_ONCE):  # counting widens its input to 64 bits
        p, y = flat[start : start + _PIXELS_AT_ONCE], true[start : start + _PIXELS_AT_ONCE]
        index = np.minimum((p * bins).astype(np.intp), bins - 1)
        histogram += [np.bincount(index, weights, bins) for weights in (None, p, y)]
    return histogram / flat.size


def expected_calibration_error(histograms: Sequence[np.ndarray] | np.ndarray) -> float:
    """Expected calibration error over images, in [0, 1]: sum over bins of w |mean p - mean y|.

    The error of Guo et al. (On Calibration of Modern Neural Networks, 2017) for the probability that a
    pixel is foreground, in place of the confidence in a predicted class.

    Args:
        histograms: of `calibration_histogram`, (N, 3, bins); they are summed.

    Raises:
        ValueError: there is none.
    """
    if not len(histograms):
        raise ValueError("a calibration error needs at least one image")
    share, probability, truth = np.sum(histograms, axis=0)
    # w |mean p - mean y| is |sum p - sum y| over all pixels: a bin's own share cancels.
    return float(np.abs(probability - truth).sum() / share.sum())


class Retention(NamedTuple):
    """How the mean error of the kept images decreases as the least trusted are removed.

    Arrays are float64 (N,) over the fractions kept, 1/N to 1; an area is the mean of its curve.
    """

    fraction: np.ndarray
    curve: np.ndarray  # mean error of that fraction, the most confident
    oracle: np.ndarray  # the same, of the truly best
    area: float
    oracle_area: float  # the least there can be
    random_area: float  # of an order by chance: the mean error


def error_retention(errors: Sequence[float] | np.ndarray, confidences: Sequence[float] | np.ndarray) -> Retention:
    """The mean error of what is kept as a function of the fraction kept, most confident first.

    The risk-coverage curve of selective prediction and its area (Geifman, Uziel and El-Yaniv, Bias-Reduced
    Uncertainty Estimation for Deep Neural Classifiers, 2019). Images of equal confidence count with their
    mean error each, the expectation over their orders, so that the order given does not matter.

    Args:
        errors: of the images, (N,), lower is better.
        confidences: (N,), higher is more trusted.

    Raises:
        ValueError: lengths differ, there is no image, or a value is not finite.
    """
    error, confidence = _pairs(errors, confidences)
    curve, oracle = _risk(error, confidence), _risk(error, -error)
    fraction = np.arange(1, error.size + 1) / error.size
    return Retention(fraction, curve, oracle, float(curve.mean()), float(oracle.mean()), float(error.mean()))


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation in [-1, 1], equal values sharing the mean of their ranks (Spearman 1904).

    NaN where the values of one list are all equal: there is no order to compare with.

    Raises:
        ValueError: lengths differ, a list is empty, or a value is not finite.
    """
    from scipy import stats

    pair = _pairs(first, second)
    if any((values == values[0]).all() for values in pair):
        return math.nan
    return float(stats.spearmanr(*pair)[0])


def _risk(error: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Mean error of the 1, 2, ... most confident images."""
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    of_group = np.bincount(group, error) / size
    return np.cumsum(np.repeat(of_group, size)) / np.arange(1, error.size + 1)


def _pairs(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if x.ndim != 1 or x.shape != y.shape or not x.size or not (np.isfinite(x) & np.isfinite(y)).all():
        raise ValueError("two non-empty lists of equally many finite numbers are needed")
    return x, y


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 1 where both are 0: two empty masks are alike."""
    return np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0)


def _need_shape(probability: np.ndarray, truth: np.ndarray) -> None:
    if probability.shape != truth.shape:
        raise ValueError(f"a probability of shape {probability.shape} cannot be compared with {truth.shape}")
