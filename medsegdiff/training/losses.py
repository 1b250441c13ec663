"""Training losses, on Jittor."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

import numpy as np

from medsegdiff.diffusion.process import Diffusion
from medsegdiff.runtime.backend import Var, jt

CAL_WEIGHT = 10.0


class Losses(NamedTuple):
    """Per-sample losses, each (N,)."""

    diff: Var
    """Mean squared error of the predicted target; with `use_kl`, the bound itself."""
    vb: Optional[Var]
    """The variational-bound term in bits, or None where the variance is fixed."""
    diffusion: Var
    """What the timestep's importance weight multiplies: `diff` + `vb`, or the bound times T; plus weighted `dice`."""
    cal: Var
    """Mean squared error of the conditioning network's mask, or its `DiceCe`."""
    dice: Optional[Var] = None
    """Soft Dice loss of the predicted clean mask, before its weight; None where that is 0."""
    cal_weight: Any = CAL_WEIGHT
    """What `cal` is multiplied by: a number, or (N,)."""

    def total(self, weights: Var) -> Var:
        """The scalar that training descends: mean of weights * diffusion + cal_weight * cal."""
        return (self.diffusion * weights + self.cal_weight * self.cal).mean()


class DiceCe(NamedTuple):
    """Soft Dice loss + `beta` * cross-entropy of the conditioning network's mask (MedSegDiff-V2, equation 8)."""

    alpha: int
    """It is of samples whose timestep is divisible by this."""
    beta: float

    def __call__(self, cal: Var, mask: Var) -> Var:
        """(N,): the means over the channels of both (N, M, S, S), in [0, 1]."""
        # As far as float32 goes: the logarithm of nothing, and its slope, are infinite.
        cal = jt.clamp(cal, 1e-7, 1 - 1e-7)
        entropy = -(mask * jt.log(cal) + (1 - mask) * jt.log(1 - cal))
        return soft_dice(cal, mask) + self.beta * _per_sample(entropy)


def _per_sample(x: Var) -> Var:
    return x.reshape(x.shape[0], -1).float64().mean(dim=1).float32()


class TrainingLoss:
    """The loss of MedSegDiff for one diffusion (learned-range variance: Nichol & Dhariwal 2021).

    With a `dice_weight` W above 0, W times a soft Dice loss of the predicted clean mask is added to `diffusion`. With
    an `anchor` loss, that takes the place of the mean squared error of the conditioning network's mask.
    """

    def __init__(self, diffusion: Diffusion, dice_weight: float = 0.0, anchor: Optional[DiceCe] = None) -> None:
        self.diffusion, self.dice_weight, self.anchor = diffusion, dice_weight, anchor

    def _at(self, values: np.ndarray, t: np.ndarray) -> Var:
        return jt.array(values[t].astype(np.float32).reshape(-1, 1, 1, 1))

    def noisy(self, mask: np.ndarray, noise: np.ndarray, t: np.ndarray) -> np.ndarray:
        """q(x_t | x_0): `mask` (N, M, S, S) with noise of timesteps `t` (N,)."""
        kept = self.diffusion.schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        return np.sqrt(kept).astype(np.float32) * mask + np.sqrt(1 - kept).astype(np.float32) * noise

    def network_time(self, t: np.ndarray) -> np.ndarray:
        """(N,) float32: the times the network is asked about."""
        return (self.diffusion.schedule.timesteps[t] * self.diffusion.time_scale).astype(np.float32)

    def __call__(self, prediction: Any, mask: Var, noise: Var, x_t: Var, t: np.ndarray) -> Losses:
        """The losses of a network's `prediction` for the clean `mask`; `t` (N,) indexes the schedule."""
        losses = self._published(prediction, mask, noise, x_t, t)
        if self.anchor is not None:
            counted = jt.array((t % self.anchor.alpha == 0).astype(np.float32))
            losses = losses._replace(cal=self.anchor(prediction.cal, mask), cal_weight=counted)
        if not self.dice_weight:
            return losses
        dice = self._dice(prediction.target, mask, x_t, t)
        return losses._replace(diffusion=losses.diffusion + self.dice_weight * dice, dice=dice)

    def _published(self, prediction: Any, mask: Var, noise: Var, x_t: Var, t: np.ndarray) -> Losses:
        config = self.diffusion.config
        cal = _per_sample((mask - prediction.cal) * (mask - prediction.cal))
        if config.use_kl:
            bound = self._bound(prediction.target, prediction.variance, mask, x_t, t)
            return Losses(bound, bound, bound * len(self.diffusion), cal)
        error = self._target(mask, noise, t) - prediction.target
        diff = _per_sample(error * error)
        if prediction.variance is None:
            return Losses(diff, None, diff, cal)
        # The bound trains the variance only: it must not pull the mean.
        bound = self._bound(prediction.target.detach(), prediction.variance, mask, x_t, t)
        if config.rescale_learned_sigmas:
            bound = bound * (len(self.diffusion) / 1000)
        return Losses(diff, bound, diff + bound, cal)

    def _target(self, mask: Var, noise: Var, t: np.ndarray) -> Var:
        """What the network should predict."""
        config, kept = self.diffusion.config, self.diffusion.schedule.alphas_cumprod
        if config.predict_v:
            return self._at(np.sqrt(kept), t) * noise - self._at(np.sqrt(1 - kept), t) * mask
        return mask if config.predict_xstart else noise

    def _x0(self, target: Var, x_t: Var, t: np.ndarray) -> Var:
        """The clean mask that the network's `target` amounts to."""
        if self.diffusion.config.predict_xstart:
            return target
        of_noisy, of_target = self.diffusion.config.x0_weights(self.diffusion.schedule.alphas_cumprod)
        return self._at(of_noisy, t) * x_t + self._at(of_target, t) * target

    def _dice(self, target: Var, mask: Var, x_t: Var, t: np.ndarray) -> Var:
        """(N,) soft Dice loss of the predicted clean mask p; nothing is clipped.

        Where the noise is predicted, an error of it weighs sqrt(1 / kept - 1) as much in p, so the loss is then
        multiplied by `kept`, the share of the signal; else the gradients at high noise would drown all others.
        """
        dice = soft_dice(self._x0(target, x_t, t), mask)
        if self.diffusion.config.target != "noise":
            return dice
        return dice * jt.array(self.diffusion.schedule.alphas_cumprod[t].astype(np.float32))

    def _bound(self, target: Var, variance: Optional[Var], x0: Var, x_t: Var, t: np.ndarray) -> Var:
        """KL(q(x_{t-1} | x_t, x_0) || p) in bits, or the decoder's likelihood at t = 0."""
        schedule = self.diffusion.schedule
        coef1, coef2 = (self._at(c, t) for c in (schedule.posterior_mean_coef1, schedule.posterior_mean_coef2))
        predicted = self._x0(target, x_t, t)
        true_mean = coef1 * x0 + coef2 * x_t
        mean = coef1 * predicted + coef2 * x_t
        low = self._at(schedule.posterior_log_variance_clipped, t)
        if variance is None:
            log_variance = self._at(self.diffusion.fixed_log_variance, t) + jt.zeros_like(mean)
        else:
            share = (variance + 1) / 2
            log_variance = share * self._at(np.log(schedule.betas), t) + (1 - share) * low
        first = jt.array((t == 0).reshape(-1, 1, 1, 1)).broadcast(mean)
        # What is not chosen is computed of nothing: infinity times zero would be chosen all the same.
        nothing = jt.zeros_like(mean)
        kl = _normal_kl(jt.where(first, nothing, true_mean - mean), jt.where(first, nothing, log_variance - low), low)
        likelihood = -_discretised_log_likelihood(
            x0, jt.where(first, x0 - mean, nothing), jt.where(first, log_variance / 2, nothing)
        )
        return _per_sample(jt.where(first, likelihood, kl)) / math.log(2)


def soft_dice(p: Var, g: Var) -> Var:
    """(N,) soft Dice loss of masks p against g (N, M, S, S), the mean over the channels:

        1 - (2 <p, g> + 1) / (<p, p> + <g, g> + 1)  =  <p - g, p - g> / (<p, p> + <g, g> + 1).

    Milletari et al. 2016 (V-Net), with one pixel added for masks that are empty. As the squares are in the
    denominator, it lies in [0, 2) and has a slope wherever p is not g, also beyond [0, 1].
    """
    p, g = p.float64(), g.float64()
    error = p - g
    size = (p * p + g * g).sum(dims=(2, 3)) + 1
    return ((error * error).sum(dims=(2, 3)) / size).mean(dim=1).float32()


def _normal_kl(shift: Var, log_ratio: Var, log_var: Var) -> Var:
    """KL divergence, in nats, from a normal of variance exp(log_var) to one `shift` away and exp(log_ratio) wider."""
    return 0.5 * (log_ratio - 1 + jt.exp(-log_ratio) + shift * shift * jt.exp(-(log_var + log_ratio)))


def _normal_cdf(x: Var) -> Var:
    """The tanh approximation of the standard normal's distribution function (Page 1977)."""
    x = jt.clamp(x, -10, 10)  # where it is 0 or 1 in float32; the cube of a large number would be infinite
    return 0.5 * (1 + jt.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _discretised_log_likelihood(x: Var, centred: Var, log_scale: Var) -> Var:
    """Log likelihood of `x` in [-1, 1] under a normal, `centred` away, discretised to bins of half-width 1/255."""
    inverse = jt.exp(-log_scale)
    upper, lower = _normal_cdf(inverse * (centred + 1 / 255)), _normal_cdf(inverse * (centred - 1 / 255))

    def log(p: Var) -> Var:
        return jt.log(jt.maximum(p, 1e-12))

    inner = jt.where(x > 0.999, log(1 - lower), log(upper - lower))
    return jt.where(x < -0.999, log(upper), inner)
