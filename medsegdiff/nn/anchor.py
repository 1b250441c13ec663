"""Uncertain spatial attention (U-SA): where the conditioning network sees something (MedSegDiff-V2, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.nn.layers import Conv2d
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import jt, nn

Var = Any  # jt.Var
_REACH = 2  # a kernel of 5 x 5
_LEAST_VARIANCE = 1e-6  # of pixels: nothing but the centre is left, and nothing is divided by zero


class UncertainAttention(Part):
    """A feature map and its blurred self, whichever is larger, as one gate over the image.

    Each channel's Gaussian has a learned mean (2 numbers, in pixels, from 0 on) and standard deviation (the softplus of
    a parameter that starts at 1), and sum 1 (choices: size 5 x 5, the starts, the sum).
    """

    def __init__(self, width: int) -> None:
        self.mean = jt.zeros((width, 2))
        self.deviation = jt.ones((width,))
        self.gate = Conv2d(width, 1, 1)

    def execute(self, x: Var) -> Var:
        """(N, width, H, W) -> (N, 1, H, W) in [0, 1]."""
        return sigmoid(self.gate(jt.maximum(self.blurred(x), x)))

    def blurred(self, x: Var) -> Var:
        """(N, width, H, W), same shape out; beyond the border there is nothing. Both axes in turn are one Gaussian."""
        offsets = range(-_REACH, _REACH + 1)
        at = jt.array(np.array(offsets, np.float32))
        variance = nn.softplus(self.deviation).unsqueeze(1).sqr() + _LEAST_VARIANCE
        for axis, where in ((0, "i2+{}"), (1, "i3+{}")):
            exponent = (at.unsqueeze(0) - self.mean[:, axis].unsqueeze(1)).sqr() / (-2 * variance)
            # Gradients of the weights are sums over all pixels: in float64, as Jittor adds one number after another.
            weights = nn.softmax(exponent, dim=1).float64().reshape(1, -1, len(offsets), 1, 1)
            index = ["i0", "i1", "i2", "i3"]
            blurred = None
            for place, offset in enumerate(offsets):
                index[2 + axis] = where.format(offset)
                part = x.reindex(x.shape, index).float64() * weights[:, :, place]
                blurred = part if blurred is None else blurred + part
            x = blurred.float32()
        return x
