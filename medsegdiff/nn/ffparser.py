"""The FF-Parser: a learned filter in the frequency domain (MedSegDiff, section 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from medsegdiff.nn import functional as F
from medsegdiff.runtime.backend import jt, nn

Var = Any  # jt.Var


class FFParser(nn.Module):
    """Multiplies the spectrum of (width, size, size) maps by a learned complex weight."""

    def __init__(self, width: int, size: int) -> None:
        self.complex_weight = jt.zeros((width, size, size // 2 + 1, 2))

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the initial weights."""
        draw = rng.standard_normal(tuple(self.complex_weight.shape), dtype=np.float32)
        self.complex_weight.assign(jt.array(draw * np.float32(0.02)))

    def execute(self, x: Var) -> Var:
        """(N, width, size, size), same shape out."""
        return F.fourier_filter(x, self.complex_weight)
