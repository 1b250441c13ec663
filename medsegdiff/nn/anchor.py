"""Uncertain spatial attention (U-SA): where the conditioning network sees something (MedSegDiff-V2, section 3.2)."""

from __future__ import annotations

import numpy as np

from medsegdiff.kernels.logistic import sigmoid
from medsegdiff.kernels.operations import blur
from medsegdiff.nn.layers import Conv2d
from medsegdiff.nn.recompute import Part
from medsegdiff.runtime.backend import Var, jt, nn

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
        at = jt.array(np.arange(-_REACH, _REACH + 1, dtype=np.float32))
        variance = nn.softplus(self.deviation).unsqueeze(1).sqr() + _LEAST_VARIANCE
        for axis in range(2):
            exponent = (at.unsqueeze(0) - self.mean[:, axis].unsqueeze(1)).sqr() / (-2 * variance)
            x = blur(x, nn.softmax(exponent, dim=1), 2 + axis)
        return x
