"""Noise schedules and their respacing, in float64 NumPy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from medsegdiff.base.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """A discrete noise schedule (DDPM, Ho et al. 2020).

    Args:
        betas: (T,) variance added at each step, in (0, 1)
        timesteps: (T,) the timestep of the unspaced schedule that each step stands for
    """

    betas: np.ndarray
    timesteps: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """(T,) share of the clean mask's variance left after each step."""
        return np.cumprod(1 - self.betas)

    @cached_property
    def alphas_cumprod_prev(self) -> np.ndarray:
        """(T,) the same one step earlier; 1 before the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """(T,) variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> np.ndarray:
        """(T,) its logarithm; the first entry, log 0, takes the second's value."""
        usable = self.posterior_variance.copy()
        usable[0] = usable[min(1, len(usable) - 1)]
        with np.errstate(divide="ignore"):
            return np.log(usable)

    @cached_property
    def posterior_mean_coef1(self) -> np.ndarray:
        """(T,) weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> np.ndarray:
        """(T,) weight of x_t in the mean of q(x_{t-1} | x_t, x_0)."""
        return (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)

    def scaled(self, factor: float) -> Schedule:
        """The schedule of masks multiplied by `factor` before noise is added, their sum brought to variance 1 again.

        With k the share of the signal, the ratio k / (1 - k) of signal and noise becomes `factor`^2 times as much
        at each step (Chen 2023, arXiv 2301.10972, section 2.3; of masks: arXiv 2504.05977).
        """
        if factor == 1:
            return self
        signal = factor**2 * self.alphas_cumprod
        cumulative = signal / (signal + 1 - self.alphas_cumprod)
        return dataclasses.replace(self, betas=_betas(cumulative))

    def respaced(self, spec: str) -> Schedule:
        """The schedule that visits only the timesteps that `spec` names (all where it is empty).

        Raises:
            InputError: `spec` cannot be read or does not fit.
        """
        if not spec:
            return self
        kept = respace(len(self), spec)
        cumulative = self.alphas_cumprod[kept]
        return Schedule(_betas(cumulative), self.timesteps[kept])


def _betas(cumulative: np.ndarray) -> np.ndarray:
    """(T,) the betas whose `alphas_cumprod` is `cumulative`."""
    return 1 - cumulative / np.append(1.0, cumulative[:-1])


def make_schedule(name: str, steps: int) -> Schedule:
    """The schedule `name`, "linear" or "cosine" (Nichol & Dhariwal 2021), with `steps` steps.

    Raises:
        InputError: it is a linear schedule with betas of 1 or more.
    """
    if name == "linear":
        if steps <= 20:
            raise InputError(
                f"`diffusion_steps` {steps}: the linear schedule needs more than 20 steps (with {steps} it adds "
                "all noise at once, beta >= 1); use more steps, or `noise_schedule` cosine"
            )
        betas = np.linspace(1e-4 * 1000 / steps, 0.02 * 1000 / steps, steps)
    else:
        grid = np.arange(steps + 1) / steps
        signal = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in grid]
        betas = np.array([min(1 - after / before, 0.999) for before, after in zip(signal, signal[1:])])
    return Schedule(betas, np.arange(steps))


def respace(steps: int, spec: str) -> np.ndarray:
    """The timesteps, ascending, that `spec` keeps of `steps`.

    "ddimN" is the first whole stride from 0 that gives exactly N steps; "10,15,20" keeps so many of
    equal sections, the remainder of the division going to the first ones.

    Raises:
        InputError: `spec` cannot be read, or asks for more steps than there are.
    """
    option = f'`timestep_respacing` "{spec[:40]}"'
    try:
        if spec.startswith("ddim"):
            return _strided(steps, int(spec[len("ddim") :]), option)
        counts = [int(part) for part in spec.split(",")]
    except ValueError:
        raise InputError(f'{option}: must look like "25", "10,15,20" or "ddim25"') from None
    quotient, remainder = divmod(steps, len(counts))
    kept, start = [], 0
    for section, count in enumerate(counts):
        size = quotient + (section < remainder)
        if not 1 <= count <= size:
            raise InputError(f"{option}: {str(count)[:20]} steps cannot be taken from a section of {size}")
        stride = (size - 1) / max(count - 1, 1)
        # Summed up, not multiplied: where a point falls on a half, the sum's rounding error decides.
        kept += [start + round(point) for point in accumulate([0.0] + [stride] * (count - 1))]
        start += size
    return np.array(kept)


def _strided(steps: int, wanted: int, option: str) -> np.ndarray:
    for stride in range(1, steps + 1):
        if len(range(0, steps, stride)) == wanted:
            return np.arange(0, steps, stride)
    exactly = f"exactly {str(wanted)[:20]} of {steps} steps"
    raise InputError(f"{option}: no whole stride gives {exactly}; choose another number")
