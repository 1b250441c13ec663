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
            std = np.exp(np.float32(0.5) * diffusion.log_variance(step, output))
            mean = mean + std * noise(last - step + 1)
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


def dpm_solver_pp(
    denoise: Denoise,
    diffusion: Diffusion,
    noise: Noise,
    steps: int,
    threshold: Optional[float] = 0.995,
    time_scale: Optional[float] = None,
    stochastic: bool = False,
) -> Iterator[State]:
    """DPM-Solver++(2M), the second-order multistep solver (Lu et al. 2022, algorithm 2).

    Steps are uniform in time from 1 to 1/N, N being the length of the unspaced schedule; the first
    step, and below 10 steps the last, are of first order. The result is the state at time 1/N.

    Args:
        denoise, diffusion, noise: as for every sampler
        steps: network evaluations
        threshold: quantile of dynamic thresholding (Saharia et al. 2022, section 2.3); 0: clip to [-1, 1], as the
            other samplers do; None: neither
        time_scale: the network is asked at `(t - 1/N) * time_scale`; by default what it was trained with
        stochastic: solve the reverse SDE (the paper's SDE-DPM-Solver++(2M)): draw k is the noise of step k,
            none at the last, as in ancestral sampling; else the ODE, which uses draw 0 alone
    """
    grid = SolverGrid(diffusion, steps)
    scale = diffusion.config.diffusion_steps * diffusion.time_scale if time_scale is None else time_scale
    x, before = noise(0), None
    for i in range(steps):
        output = denoise(x, (grid.times[i] - grid.times[-1]) * scale)
        x0 = output.target
        # Not by `x0_weights`: where alpha is small, the difference keeps more digits if it is divided afterwards.
        if diffusion.config.predict_v:
            x0 = np.float32(grid.alpha[i]) * x - np.float32(grid.sigma[i]) * x0
        elif not diffusion.config.predict_xstart:
            x0 = (x - np.float32(grid.sigma[i]) * x0) / np.float32(grid.alpha[i])
        if threshold is not None:
            x0 = dynamic_threshold(x0, threshold) if threshold else np.clip(x0, -1, 1)
        h = grid.log_snr_half[i + 1] - grid.log_snr_half[i]
        direction = x0
        if before is not None and not (i == steps - 1 and steps < 10):
            h_before = grid.log_snr_half[i] - grid.log_snr_half[i - 1]
            direction = x0 + np.float32(h / h_before / 2) * (x0 - before)
        kept, alpha, sigma = grid.sigma[i + 1] / grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]
        if stochastic:
            x = np.float32(kept * np.exp(-h)) * x - np.float32(alpha * np.expm1(-2 * h)) * direction
            if i < steps - 1:
                x = x + np.float32(sigma * np.sqrt(-np.expm1(-2 * h))) * noise(i + 1)
        else:
            x = np.float32(kept) * x - np.float32(alpha * np.expm1(-h)) * direction
        before = x0
        yield State(x, x0, output.cal)


class SolverGrid:
    """The continuous schedule at the `steps` + 1 times that a solver visits, float64.

    log alpha is interpolated linearly between the discrete steps n, which stand at (n + 1) / N.
    """

    def __init__(self, diffusion: Diffusion, steps: int) -> None:
        kept = diffusion.schedule.alphas_cumprod
        count = len(kept)
        self.times = np.linspace(1, 1 / count, steps + 1)
        log_alpha = np.interp(self.times, np.arange(1, count + 1) / count, 0.5 * np.log(kept))
        self.alpha = np.exp(log_alpha)
        self.sigma = np.sqrt(-np.expm1(2 * log_alpha))
        self.log_snr_half = log_alpha - np.log(self.sigma)


def dynamic_threshold(x0: np.ndarray, quantile: float) -> np.ndarray:
    """Clip each sample of `x0` to its `quantile` of absolute values, at least 1, and divide by it."""
    bound = np.quantile(np.abs(x0.reshape(len(x0), -1)), quantile, axis=1).astype(np.float32)
    bound = np.maximum(bound, 1).reshape(-1, 1, 1, 1)
    return np.clip(x0, -bound, bound) / bound


def final(states: Iterator[State], callback: Optional[Callable[[State], None]] = None) -> State:
    """The last state of a sampler; `callback` sees every state."""
    state = None
    for state in states:
        if callback is not None:
            callback(state)
    if state is None:
        raise ValueError("a sampler without steps has no result")
    return state
