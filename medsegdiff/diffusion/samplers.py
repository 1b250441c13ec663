"""Samplers: functions of a denoise function, a diffusion and the noise, in NumPy.

`denoise(mask_t, t)` answers for float32 `mask_t` (N, M, S, S) and network time `t` with an `Output`;
`noise(k)` is the k-th standard normal draw of that shape, draw 0 being the starting point. The state
stays in float32 NumPy, so its arithmetic is the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import numpy as np

from medsegdiff.diffusion.process import Diffusion, Output

Denoise = Callable[[np.ndarray, float], Output]
Noise = Callable[[int], np.ndarray]


class State(NamedTuple):
    """Where a sampler stands after a network evaluation."""

    x: np.ndarray
    """(N, M, S, S): the mask with the noise that is left."""
    x0: np.ndarray
    """(N, M, S, S): the clean mask predicted at this evaluation."""
    cal: Optional[np.ndarray]
    """(N, M, S, S): the conditioning network's mask."""


def ddpm(denoise: Denoise, diffusion: Diffusion, noise: Noise) -> Iterator[State]:
    """Ancestral sampling, one evaluation a step of the (respaced) schedule (Ho et al. 2020).

    The predicted clean mask is clipped to [-1, 1], as published; the last step adds no noise.
    """
    x = noise(0)
    last = len(diffusion) - 1
    for step in range(last, -1, -1):
        output = denoise(x, diffusion.network_time(step))
        x0 = np.clip(diffusion.to_x0(x, step, output), -1, 1)
        mean = diffusion.posterior_mean(x, step, x0)
        if step:
            spread = np.exp(np.float32(0.5) * diffusion.log_variance(step, output))
            mean = mean + spread * noise(last - step + 1)
        x = mean
        yield State(x, x0, output.cal)


def ddim(denoise: Denoise, diffusion: Diffusion, noise: Noise, eta: float = 0.0) -> Iterator[State]:
    """Implicit sampling, deterministic where `eta` is 0 (Song et al. 2021, eq. 12).

    The predicted clean mask is clipped to [-1, 1] and the noise recomputed from it.
    """
    x = noise(0)
    schedule, last = diffusion.schedule, len(diffusion) - 1
    for step in range(last, -1, -1):
        output = denoise(x, diffusion.network_time(step))
        x0 = np.clip(diffusion.to_x0(x, step, output), -1, 1)
        direction = diffusion.to_noise(x, step, x0)
        kept, kept_next = schedule.alphas_cumprod[step], schedule.alphas_cumprod_prev[step]
        sigma = eta * np.sqrt((1 - kept_next) / (1 - kept) * (1 - kept / kept_next))
        x = np.float32(np.sqrt(kept_next)) * x0 + np.float32(np.sqrt(1 - kept_next - sigma**2)) * direction
        if step and eta:
            x = x + np.float32(sigma) * noise(last - step + 1)
        yield State(x, x0, output.cal)


def final(states: Iterator[State]) -> State:
    """The last state of a sampler."""
    state = None
    for state in states:  # noqa: B007 (the last one is what counts)
        pass
    if state is None:
        raise ValueError("a sampler without steps has no result")
    return state
