"""Loss scaling (Micikevicius et al. 2018): float16 loses small gradients unless the loss is scaled up."""

from __future__ import annotations

from typing import Any

START = 2.0**16
FLOOR = 1.0


class LossScale:
    """A power of two, so that scaling changes no digit. It finds its own size:

    It halves with every gradient that is not finite, and doubles after `1 / growth` finite ones in a row: as in the
    published code, its logarithm to base 2 grows by `growth` a step, though in whole steps.

    Args:
        growth: from 0 (it never grows) to 1
        start: what it is at first, a power of two; 1 with a growth of 0 is no scaling
    """

    def __init__(self, growth: float, start: float = START) -> None:
        self.patience = round(1 / growth) if growth else 0
        self.value = start
        self.finite = 0
        """Finite gradients since it last changed."""

    def update(self, finite: bool) -> bool:
        """Take note of a gradient; whether the scale was changed on account of one that is not finite."""
        if not finite:
            self.finite = 0
            lowered = self.value > FLOOR
            self.value = max(self.value / 2, FLOOR)
            return lowered
        self.finite += 1
        if self.patience and self.finite >= self.patience:
            self.value, self.finite = self.value * 2, 0
        return False

    def state(self) -> dict[str, Any]:
        """What `load` needs, ready for JSON."""
        return {"value": self.value, "finite": self.finite}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.value, self.finite = float(state["value"]), int(state["finite"])
