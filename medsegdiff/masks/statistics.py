"""Mean and uncertainty of a metric over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medsegdiff.base.randomness import generator

_DRAWS_AT_ONCE = 1 << 20  # 8 MiB of indices and as much of values, whatever the number of images


class Summary(NamedTuple):
    """A metric over `n` images; `std`, `low` and `high` are NaN for a single image."""

    mean: float
    std: float  # sample standard deviation (n - 1)
    low: float  # 95 % interval of the mean
    high: float
    n: int


def summarise(values: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 10000) -> Summary:
    """Mean, standard deviation and percentile bootstrap 95 % interval of the mean (Efron 1979).

    Images are resampled with replacement `resamples` times. The result depends on the values, their
    order, `seed` and `resamples` alone.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise ValueError("a summary needs a non-empty list of finite numbers")
    n = sample.size
    if n == 1:
        return Summary(float(sample[0]), math.nan, math.nan, math.nan, 1)

    random = generator(seed, "bootstrap")
    rows = max(1, _DRAWS_AT_ONCE // n)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        part[:] = sample[random.integers(0, n, size=(part.size, n))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Summary(float(sample.mean()), float(sample.std(ddof=1)), float(low), float(high), n)
