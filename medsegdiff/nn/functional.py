"""Array operations of the networks, on Jittor."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from medsegdiff.base.fourier import half_spectrum
from medsegdiff.kernels import precision
from medsegdiff.kernels.operations import linear
from medsegdiff.runtime.backend import Var, jt, persistent


def average_pool(x: Var) -> Var:
    """(N, C, H, W) -> (N, C, H/2, W/2), the mean of each 2 x 2 block."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(dims=(3, 5))


def max_pool(x: Var) -> Var:
    """(N, C, H, W) -> (N, C, H/2, W/2), the largest of each 2 x 2 block; of equals, the first has the gradient."""
    n, c, h, w = x.shape

    def corner(dy: int, dx: int) -> Var:
        return x.reindex([n, c, h // 2, w // 2], ["i0", "i1", f"i2*2+{dy}", f"i3*2+{dx}"])

    # Jittor's maximum gives the gradient of equals to its second argument.
    return jt.maximum(jt.maximum(corner(1, 1), corner(1, 0)), jt.maximum(corner(0, 1), corner(0, 0)))


def upsample_bilinear(x: Var, factor: int) -> Var:
    """(N, C, H, W) -> (N, C, factor H, factor W), bilinear, corners not aligned."""
    return _stretch(_stretch(x, factor, axis=2), factor, axis=3)


def _stretch(x: Var, factor: int, axis: int) -> Var:
    size = x.shape[axis]
    low, high, weight = _neighbours(size, factor, axis)
    shape = list(x.shape)
    shape[axis] = size * factor

    def rows(chosen: Var) -> Var:
        where = [f"i{k}" for k in range(4)]
        where[axis] = f"@e0(i{axis})"
        return x.reindex(shape, where, extras=[chosen])

    return rows(low) * (1 - weight) + rows(high) * weight


@lru_cache
def _neighbours(size: int, factor: int, axis: int) -> tuple[Var, Var, Var]:
    """For each place of a stretched axis, which two places it lies between, and how near to the second."""
    centre = (np.arange(size * factor) + 0.5) / factor - 0.5
    low = np.floor(centre)
    index = (persistent(np.clip(place, 0, size - 1).astype(np.int32)) for place in (low, low + 1))
    weight = (centre - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(4)])
    return *index, persistent(weight).stop_grad()


def fitted(x: Var, size: int) -> Var:
    """Maps (N, C, H, H) at another size that is H times or over a power of two: averaged, or interpolated."""
    while x.shape[2] > size:
        x = average_pool(x)
    return x if x.shape[2] == size else upsample_bilinear(x, size // x.shape[2])


def timestep_embedding(t: Var, width: int) -> Var:
    """Sinusoidal embedding (N, width) of the timesteps `t` (N,), cosines first."""
    half = width // 2
    frequencies = jt.array(np.exp(-math.log(10000) * np.arange(half) / half).astype(np.float32))
    angles = t.float32().reshape(-1, 1) * frequencies.reshape(1, -1)
    return jt.concat([jt.cos(angles), jt.sin(angles)], dim=1)


def fourier_filter(x: Var, weight: Var) -> Var:
    """Multiply the spectrum of `x` (N, C, H, W) by `weight` (C, H, W/2 + 1, 2: real, imaginary).

    Orthonormal real FFT; the inverse is complex along H and then complex-to-real along W, where the
    imaginary parts of the first and the last column are ignored.
    """
    h, w = x.shape[2:]
    along_h, along_w, fold = half_spectrum(h, w)

    def matrix(values: np.ndarray, size: int) -> Var:
        return jt.array((values.T / math.sqrt(size)).astype(np.float32))

    cos_h, sin_h = matrix(np.cos(along_h), h), matrix(np.sin(along_h), h)

    def last_axis(a: Var, m: Var) -> Var:
        with precision.using("fp32"):  # a spectrum's values are too far apart for fewer bits
            return linear(a, m)

    def transposed(a: Var) -> Var:
        return a.transpose(0, 1, 3, 2)

    re = transposed(last_axis(x, matrix(np.cos(along_w), w)))
    im = transposed(last_axis(x, matrix(-np.sin(along_w), w)))
    re, im = last_axis(re, cos_h) + last_axis(im, sin_h), last_axis(im, cos_h) - last_axis(re, sin_h)
    w_re, w_im = (weight[:, :, :, part].transpose(0, 2, 1).unsqueeze(0) for part in (0, 1))
    re, im = re * w_re - im * w_im, re * w_im + im * w_re
    re, im = last_axis(re, cos_h) - last_axis(im, sin_h), last_axis(im, cos_h) + last_axis(re, sin_h)
    return last_axis(transposed(re), matrix(fold * np.cos(along_w).T, w)) - last_axis(
        transposed(im), matrix(fold * np.sin(along_w).T, w)
    )
