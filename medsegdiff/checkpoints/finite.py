"""Weights that are not finite numbers: what is broken, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

REMEDY = "lower `lr`, or give `clip_grad` 1, and continue from the last checkpoint with the same command"


def broken(arrays: Mapping[str, np.ndarray]) -> str:
    """Which of `arrays` hold NaN or infinity: the first, and how many more; empty if none does."""
    names = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if not names:
        return ""
    more = f" (and {len(names) - 1} more)" if names[1:] else ""
    return f"{names[0]}{more} is not finite"
