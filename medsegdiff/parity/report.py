"""What a replay found: one row for each compared quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Row:
    """One compared quantity; without an error it was not compared, and `note` says why."""

    case: str
    quantity: str
    error: Optional[float] = None
    tolerance: Optional[float] = None
    note: str = ""
    excused: bool = False
    """Whether it could not be compared here and need not be: what it compares with is not part of the project."""

    @property
    def passed(self) -> bool:
        """Whether the error is a number inside the tolerance."""
        return self.error is not None and self.tolerance is not None and self.error <= self.tolerance


def absolute(case: str, quantity: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Row:
    """A row with the largest absolute difference."""
    return Row(case, quantity, _largest(np.abs(_float(ours) - _float(theirs))), tolerance)


def mean_absolute(case: str, quantity: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Row:
    """A row with the mean absolute difference."""
    return Row(case, quantity, float(np.abs(_float(ours) - _float(theirs)).mean()), tolerance)


def relative(
    case: str, quantity: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float, names: Optional[list[str]] = None
) -> Row:
    """A row with the largest difference relative to their value; zero must be met exactly."""
    difference = np.abs(_float(ours) - _float(theirs))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(difference == 0, 0.0, difference / np.abs(_float(theirs)))
    note = f"worst: {names[int(np.argmax(errors))]}" if names else ""
    return Row(case, quantity, _largest(errors), tolerance, note)


def _largest(values: np.ndarray) -> float:
    largest = float(values.max())
    return largest if np.isfinite(largest) else float("inf")


def _float(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)
