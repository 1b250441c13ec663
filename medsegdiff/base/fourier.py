"""The discrete Fourier transform as matrices: at the networks' sizes as fast as an FFT, and there on every device."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=8)
def fourier_matrix(h: int, w: int) -> np.ndarray:
    """(2 n, 2 n) float32, n = h w: what the orthonormal 2-D DFT does to flattened maps, as a real matrix.

    A complex map is a row (real part | imaginary part); that times the matrix is its spectrum, times the transposed
    matrix the inverse.
    """
    along_h, along_w = (np.outer(np.arange(size), np.arange(size)) / size for size in (h, w))
    angles = 2 * np.pi * (along_h[:, None, :, None] + along_w[None, :, None, :]).reshape(h * w, h * w)
    cos, sin = np.cos(angles), np.sin(angles)
    return (np.block([[cos, -sin], [sin, cos]]) / np.sqrt(h * w)).astype(np.float32)


def half_spectrum(h: int, w: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the real 2-D DFT of maps (h, w) is made of, whose spectrum has the columns 0 to w / 2 alone, float64.

    Returns:
        Angles along the height (h, h) and the width (w, w / 2 + 1); how often each column counts (w / 2 + 1, 1).
    """
    half = w // 2 + 1
    along_h = 2 * np.pi * np.outer(np.arange(h), np.arange(h)) / h
    along_w = 2 * np.pi * np.outer(np.arange(w), np.arange(half)) / w
    return along_h, along_w, np.where((np.arange(half) == 0) | (np.arange(half) == w // 2), 1.0, 2.0)[:, None]
