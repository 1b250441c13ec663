"""The diffusion process: a schedule, and what the network's output means. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Optional, Union

import numpy as np

from medsegdiff.base.bounds import bounded, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.diffusion.schedule import Schedule, make_schedule

NoiseSchedule = Literal["linear", "cosine"]


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion's options, by their published names.

    Args:
        diffusion_steps: steps T of the full schedule
        noise_schedule: how the noise grows from step to step
        mask_scale: factor of the mask before noise is added, from 0.01 to 100; below 1 more of the steps are noisy
            ones
        predict_xstart: the network predicts the clean mask, not the noise
        predict_v: it predicts v, the noise and the clean mask mixed (Salimans & Ho 2022): near the clean mask where
            there is much noise, near the noise where there is little
        sigma_small: variance, when it is not learned: the posterior's, not beta
        rescale_timesteps: the network sees t * 1000 / T
        use_kl: train on the variational bound only
        rescale_learned_sigmas: scale the bound's term by T / 1000
    """

    # With one step no solver has an interval, and the posterior's variance is 0.
    diffusion_steps: int = bounded(1000, 2, 100_000)
    noise_schedule: NoiseSchedule = "linear"
    mask_scale: float = bounded(1.0, 0.01, 100)
    predict_xstart: bool = False
    predict_v: bool = False
    sigma_small: bool = False
    rescale_timesteps: bool = False
    use_kl: bool = False
    rescale_learned_sigmas: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.predict_xstart and self.predict_v:
            raise InputError("`predict_v` true: contradicts `predict_xstart` true; set one of them to false")
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        """The noise schedule with all its steps.

        Raises:
            InputError: there is none with these options.
        """
        return make_schedule(self.noise_schedule, self.diffusion_steps).scaled(self.mask_scale)

    @property
    def target(self) -> Literal["noise", "clean mask", "v"]:
        """What the network predicts."""
        return "clean mask" if self.predict_xstart else "v" if self.predict_v else "noise"

    def x0_weights(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (of the noisy mask, of the predicted noise or v) whose sum is the clean mask.

        `kept` is the share of the signal's variance, `alphas_cumprod`, of any shape; so are the weights. The noisy
        mask is sqrt(kept) x0 + sqrt(1 - kept) noise, and v is sqrt(kept) noise - sqrt(1 - kept) x0 (Salimans & Ho 2022,
        appendix D).
        """
        if self.predict_v:
            return np.sqrt(kept), -np.sqrt(1 - kept)
        return 1 / np.sqrt(kept), -np.sqrt(1 / kept - 1)


class Output(NamedTuple):
    """What a denoise function returns; float32 arrays of the noisy mask's shape."""

    target: np.ndarray
    """The predicted noise, clean mask or v: what the network was trained for."""
    variance: Optional[np.ndarray]
    """The learned variance value v, or None."""
    cal: Optional[np.ndarray] = None
    """The conditioning network's mask, in [0, 1]."""


class Diffusion:
    """A schedule with the meaning of the network's output at each of its steps.

    `respacing` names the steps to visit, as "25", "10,15,20" or "ddim25" (all where it is empty).
    A learned variance is kept inside its range unless `clip_variance` is False, as published.
    Arrays are float32 (N, M, S, S); `step` counts from 0 (almost clean) to T - 1 (noise).
    """

    def __init__(self, config: DiffusionConfig, respacing: str = "", clip_variance: bool = True) -> None:
        self.config, self.clip_variance = config, clip_variance
        self.schedule: Schedule = config.schedule.respaced(respacing)

    def __len__(self) -> int:
        return len(self.schedule)

    @property
    def time_scale(self) -> float:
        """What the network's time is multiplied by."""
        return 1000 / self.config.diffusion_steps if self.config.rescale_timesteps else 1.0

    def network_time(self, step: int) -> float:
        """The time at which the network is asked about `step`."""
        return float(self.schedule.timesteps[step]) * self.time_scale

    def to_x0(self, x_t: np.ndarray, step: int, output: Output) -> np.ndarray:
        """The clean mask that `output` predicts, unclipped."""
        if self.config.predict_xstart:
            return output.target
        of_noisy, of_target = self.config.x0_weights(self.schedule.alphas_cumprod[step])
        return np.float32(of_noisy) * x_t + np.float32(of_target) * output.target

    def to_noise(self, x_t: np.ndarray, step: int, x0: np.ndarray) -> np.ndarray:
        """The noise that turns `x0` into `x_t`."""
        kept = self.schedule.alphas_cumprod[step]
        return (np.float32(1 / np.sqrt(kept)) * x_t - x0) / np.float32(np.sqrt(1 / kept - 1))

    def posterior_mean(self, x_t: np.ndarray, step: int, x0: np.ndarray) -> np.ndarray:
        """Mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
        schedule = self.schedule
        return (
            np.float32(schedule.posterior_mean_coef1[step]) * x0 + np.float32(schedule.posterior_mean_coef2[step]) * x_t
        )

    @property
    def fixed_log_variance(self) -> np.ndarray:
        """(T,) log variance of the reverse steps where it is not learned."""
        schedule = self.schedule
        if self.config.sigma_small:
            return schedule.posterior_log_variance_clipped
        first = schedule.posterior_variance[min(1, len(schedule) - 1)]
        return np.log(np.append(first, schedule.betas[1:]))

    def log_variance(self, step: int, output: Output) -> Union[np.ndarray, np.float32]:
        """Log variance of the reverse step; a learned one lies between the posterior's and beta's.

        Nothing in training keeps v inside [-1, 1]. A little beyond does little harm in the full schedule;
        in a respaced one, where the range is wide, it turns masks into noise.

        Source: Nichol & Dhariwal 2021, eq. 15.
        """
        if output.variance is None:
            return np.float32(self.fixed_log_variance[step])
        share = (output.variance + np.float32(1)) / np.float32(2)
        if self.clip_variance:
            share = np.clip(share, 0, 1)
        low = np.float32(self.schedule.posterior_log_variance_clipped[step])
        high = np.float32(np.log(self.schedule.betas[step]))
        return share * high + (1 - share) * low
