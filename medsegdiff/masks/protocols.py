"""How published evaluations compare a probability with the ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Optional

import numpy as np
from PIL import Image

from medsegdiff.base.bounds import check_bounds
from medsegdiff.masks.metrics import published_iou_dice
from medsegdiff.masks.resizing import resize_probability

ProtocolName = Literal["ours", "original", "jittor"]
_LARGEST = 4096


@dataclass(frozen=True)
class Protocol:
    """Both are resized to a square, the probability is scaled, then both are thresholded at several values."""

    name: str
    size: int
    """Side of the square in pixels."""
    scale: Callable[[np.ndarray], np.ndarray]
    """What is done to the probability, float32 (size, size), there."""
    words: str
    """What is done to the probability and the ground truth; {size} is the square."""
    antialiased: bool = True
    """Whether the ground truth is shrunk by all its pixels, or by the four nearest to each of the square's."""

    def target(self, truth: np.ndarray) -> np.ndarray:
        """The ground truth, float32 (H, W) in [0, 1], in the square."""
        square = (self.size, self.size)
        if self.antialiased:
            return resize_probability(truth, square)
        height, width = truth.shape
        to_source = (width / self.size, 0, 0, 0, height / self.size, 0)
        image = Image.fromarray(truth.astype(np.float32))
        return np.asarray(image.transform(square, Image.Transform.AFFINE, to_source, Image.Resampling.BILINEAR))

    def iou_dice(self, probability: np.ndarray, target: np.ndarray) -> tuple[float, float]:
        """IoU and Dice of a probability, float (H, W) in [0, 1], for a `target` in the square."""
        return published_iou_dice(self.scale(resize_probability(probability, target.shape)), target)

    @property
    def convention(self) -> str:
        """The protocol in words."""
        size = f"{self.size} x {self.size}"
        return f"{self.words.format(size=size)}, both cut at 0.1, 0.3, 0.5, 0.7, 0.9, scores averaged over the cuts"


def _over_maximum(values: np.ndarray) -> np.ndarray:
    top = values.max()
    return values / top if top > 0 else values


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


_KNOWN = (
    Protocol("ours", 256, lambda values: values, "probability and ground truth bilinear to {size}"),
    Protocol(
        "original", 256, _over_maximum, "probability and ground truth bilinear to {size}, the former over its maximum"
    ),
    Protocol(
        "jittor",
        64,
        _stretched,
        "probability bilinear to {size} and stretched to [0, 1] by its minimum and maximum, "
        "ground truth bilinear without antialiasing",
        antialiased=False,
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _KNOWN}


def make_protocol(name: str = "ours", size: Optional[int] = None) -> Protocol:
    """The protocol `name`, in a square of its own `size` or of another.

    * "ours": probabilities as they are, 256 x 256.
    * "original": the PyTorch code's `segmentation_env.py`; each probability is divided by its maximum, 256 x 256.
    * "jittor": that of the published Jittor project (github.com/XD-XXF/MedSegDiff-Jittor); each probability is
      stretched to [0, 1] by its minimum and maximum, 64 x 64. What its 8-bit JPEG files lose is left out.

    A probability that is 0 everywhere stays so; one that is the same everywhere is stretched to 0.

    Raises:
        InputError: there is no such size.
    """
    protocol = PROTOCOLS[name]
    if size is None:
        return protocol
    check_bounds("`protocol_size`", size, 1, _LARGEST)
    return replace(protocol, size=size)
