"""Which timesteps to train on, and what each sample then weighs. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class UniformTimesteps:
    """Every timestep is as likely as any other."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def probabilities(self) -> np.ndarray:
        """(T,) summing to 1."""
        return np.full(self.steps, 1 / self.steps)

    def draw(self, generators: Sequence[np.random.Generator]) -> tuple[np.ndarray, np.ndarray]:
        """(timesteps (N,) int64, importance weights (N,) float32), one from each generator."""
        p = self.probabilities()
        cumulative = np.cumsum(p)
        t = np.array([np.searchsorted(cumulative, g.random() * cumulative[-1], side="right") for g in generators])
        t = np.minimum(t, self.steps - 1)
        return t, (1 / (self.steps * p[t])).astype(np.float32)

    def update(self, t: np.ndarray, losses: np.ndarray) -> None:
        """Take note of the losses (N,) at the timesteps `t`; nothing to learn here."""

    def state(self) -> dict[str, np.ndarray]:
        """What a resumed training needs."""
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state`."""


class HighNoiseTimesteps(UniformTimesteps):
    """Noisy timesteps more often, in proportion to t + 1, and each sample counts as much as any other.

    Sampling in a few steps stands mostly at high noise; so the weights stay 1, and do not undo the choice.
    """

    def probabilities(self) -> np.ndarray:
        """(T,) summing to 1."""
        weights = np.arange(1, self.steps + 1, dtype=np.float64)
        return weights / weights.sum()

    def draw(self, generators: Sequence[np.random.Generator]) -> tuple[np.ndarray, np.ndarray]:
        """(timesteps (N,) int64, ones (N,) float32), one from each generator."""
        t, _ = super().draw(generators)
        return t, np.ones(len(t), np.float32)


class LossSecondMomentTimesteps(UniformTimesteps):
    """Timesteps in proportion to the root mean square of their last ten losses.

    Uniform until every timestep has ten losses; a thousandth of the probability stays uniform.
    Source: Nichol & Dhariwal 2021, section 3.3.
    """

    history = 10
    uniform_share = 0.001

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self._losses = np.zeros((steps, self.history))
        self._counts = np.zeros(steps, np.int64)

    def probabilities(self) -> np.ndarray:
        """(T,) summing to 1."""
        if (self._counts < self.history).any():
            return super().probabilities()
        weights = np.sqrt((self._losses**2).mean(axis=1))
        total = weights.sum()
        if not total:
            return super().probabilities()
        return weights / total * (1 - self.uniform_share) + self.uniform_share / self.steps

    def update(self, t: np.ndarray, losses: np.ndarray) -> None:
        """Take note of the losses (N,) at the timesteps `t`; the oldest are forgotten."""
        for step, loss in zip(t, losses):
            self._losses[step] = np.append(self._losses[step, 1:], loss)
            self._counts[step] = min(self._counts[step] + 1, self.history)

    def state(self) -> dict[str, np.ndarray]:
        """What a resumed training needs."""
        return {"losses": self._losses.copy(), "counts": self._counts.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state`."""
        self._losses[:] = state["losses"]
        self._counts[:] = state["counts"]


TIMESTEPS = {
    "uniform": UniformTimesteps,
    "high-noise": HighNoiseTimesteps,
    "loss-second-moment": LossSecondMomentTimesteps,
}
"""By the name that the option `schedule_sampler` has."""
