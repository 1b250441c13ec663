"""The training loss of `medsegdiff.training.losses` on PyTorch, in the precision of its arguments."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.torch_network import Prediction
from medsegdiff.diffusion.process import Diffusion

CAL_WEIGHT = 10.0


class TorchLosses(NamedTuple):
    """Per-sample losses, each (N,)."""

    diff: Tensor
    """Mean squared error of the predicted target; with `use_kl`, the bound itself."""
    vb: Optional[Tensor]
    """The variational-bound term in bits, or None where the variance is fixed."""
    diffusion: Tensor
    """`diff` + `vb`, or the bound times T."""
    cal: Tensor
    """Mean squared error of the conditioning network's mask, or its soft Dice loss and cross-entropy."""
    cal_weight: Any = CAL_WEIGHT
    """What `cal` is multiplied by: a number, or (N,)."""

    def total(self) -> Tensor:
        """The scalar that training descends, for timesteps drawn uniformly."""
        return (self.diffusion + self.cal_weight * self.cal).mean()


class TorchTrainingLoss:
    """The loss of MedSegDiff for one diffusion (learned-range variance: Nichol & Dhariwal 2021)."""

    def __init__(self, diffusion: Diffusion, anchor: Optional[tuple[int, float]] = None) -> None:
        """With an `anchor`, alpha and beta of version v2's loss of the conditioning network's mask."""
        self.diffusion, self.anchor = diffusion, anchor

    @staticmethod
    def _at(values: np.ndarray, t: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(values[t]).to(like).view(-1, 1, 1, 1)

    def noisy(self, mask: Tensor, noise: Tensor, t: np.ndarray) -> Tensor:
        """q(x_t | x_0): `mask` (N, M, S, S) with noise of timesteps `t` (N,)."""
        kept = self.diffusion.schedule.alphas_cumprod
        return self._at(np.sqrt(kept), t, mask) * mask + self._at(np.sqrt(1 - kept), t, mask) * noise

    def network_time(self, t: np.ndarray, like: Tensor) -> Tensor:
        """(N,): the times the network is asked about, of the kind of `like`."""
        return torch.from_numpy(self.diffusion.schedule.timesteps[t] * self.diffusion.time_scale).to(like)

    def __call__(self, prediction: Prediction, mask: Tensor, noise: Tensor, x_t: Tensor, t: np.ndarray) -> TorchLosses:
        """The losses of a `prediction` for the clean `mask`; `t` (N,) indexes the schedule."""
        losses = self._published(prediction, mask, noise, x_t, t)
        if self.anchor is None:
            return losses
        alpha, beta = self.anchor
        p, g = prediction.cal, mask
        dice = 1 - (2 * (p * g).sum((2, 3)) + 1) / ((p**2).sum((2, 3)) + (g**2).sum((2, 3)) + 1)
        entropy = functional.binary_cross_entropy(p, g, reduction="none")
        counted = torch.from_numpy(t % alpha == 0).to(mask)
        return losses._replace(cal=dice.mean(dim=1) + beta * _per_sample(entropy), cal_weight=counted)

    def _published(
        self, prediction: Prediction, mask: Tensor, noise: Tensor, x_t: Tensor, t: np.ndarray
    ) -> TorchLosses:
        config = self.diffusion.config
        cal = _per_sample((mask - prediction.cal) ** 2)
        if config.use_kl:
            bound = self._bound(prediction.target, prediction.variance, mask, x_t, t)
            return TorchLosses(bound, bound, bound * len(self.diffusion), cal)
        diff = _per_sample((self._target(mask, noise, t) - prediction.target) ** 2)
        if prediction.variance is None:
            return TorchLosses(diff, None, diff, cal)
        # The bound trains the variance only: it must not pull the mean.
        bound = self._bound(prediction.target.detach(), prediction.variance, mask, x_t, t)
        if config.rescale_learned_sigmas:
            bound = bound * (len(self.diffusion) / 1000)
        return TorchLosses(diff, bound, diff + bound, cal)

    def _target(self, mask: Tensor, noise: Tensor, t: np.ndarray) -> Tensor:
        """What the network should predict."""
        config, kept = self.diffusion.config, self.diffusion.schedule.alphas_cumprod
        if config.predict_v:
            return self._at(np.sqrt(kept), t, mask) * noise - self._at(np.sqrt(1 - kept), t, mask) * mask
        return mask if config.predict_xstart else noise

    def _bound(self, target: Tensor, variance: Optional[Tensor], x0: Tensor, x_t: Tensor, t: np.ndarray) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p) in bits, or the decoder's likelihood at t = 0; (N,)."""
        schedule = self.diffusion.schedule
        coef1, coef2 = (self._at(c, t, x0) for c in (schedule.posterior_mean_coef1, schedule.posterior_mean_coef2))
        predicted = target
        if not self.diffusion.config.predict_xstart:
            of_noisy, of_target = self.diffusion.config.x0_weights(schedule.alphas_cumprod)
            predicted = self._at(of_noisy, t, x0) * x_t + self._at(of_target, t, x0) * target
        true_mean = coef1 * x0 + coef2 * x_t
        mean = coef1 * predicted + coef2 * x_t
        low = self._at(schedule.posterior_log_variance_clipped, t, x0)
        if variance is None:
            log_variance = self._at(self.diffusion.fixed_log_variance, t, x0).expand_as(mean)
        else:
            share = (variance + 1) / 2
            log_variance = share * self._at(np.log(schedule.betas), t, x0) + (1 - share) * low
        kl = _normal_kl(true_mean, low, mean, log_variance)
        likelihood = -_discretised_log_likelihood(x0, mean, log_variance / 2)
        first = self._at(np.arange(len(schedule)) == 0, t, x0).bool()
        return _per_sample(torch.where(first, likelihood, kl)) / math.log(2)


def _per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _normal_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    shift = mean1 - mean2
    return 0.5 * (log_var2 - log_var1 - 1 + torch.exp(log_var1 - log_var2) + shift**2 * torch.exp(-log_var2))


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function (Page 1977)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log likelihood of `x` in [-1, 1] under a normal discretised to bins of half-width 1/255."""
    centred, inverse = x - mean, torch.exp(-log_scale)
    upper, lower = _normal_cdf(inverse * (centred + 1 / 255)), _normal_cdf(inverse * (centred - 1 / 255))

    def log(p: Tensor) -> Tensor:
        return p.clamp(min=1e-12).log()

    inner = torch.where(x > 0.999, log(1 - lower), log(upper - lower))
    return torch.where(x < -0.999, log(upper), inner)
