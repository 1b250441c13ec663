"""From probabilities to a mask."""

from __future__ import annotations

import numpy as np

THRESHOLD = 0.5  # a pixel belongs to the mask where its probability is above


def decide(probability: np.ndarray) -> np.ndarray:
    """The class of every pixel: float (M, H, W) to uint8 (H, W).

    0, the background, has what the foreground classes leave of 1; of equals, the first class is taken. With one
    foreground class, that is 1 where its probability exceeds one half.
    """
    if len(probability) == 1:
        return (probability[0] > THRESHOLD).astype(np.uint8)
    background = 1 - probability.sum(axis=0, keepdims=True)
    return np.concatenate([background, probability]).argmax(axis=0).astype(np.uint8)
