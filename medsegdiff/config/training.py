"""The options of a training, and of its validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medsegdiff.base.errors import InputError
from medsegdiff.config.choices import Precision, check_choices

LearningRate = Literal["", "constant", "linear", "cosine"]
Decayed = Literal["all", "matrices"]
TimestepSampler = Literal["uniform", "loss-second-moment"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        out_dir: folder for checkpoints and logs; if it holds checkpoints, training continues from the newest
        steps: training steps to reach
        batch_size: images a step
        microbatch: images computed at once, gradients being accumulated; -1: the whole batch
        use_checkpoint: compute activations again in the backward pass instead of keeping them: less memory, more time
        precision: number format of convolutions, linear layers and attention; weights and everything else are
            float32
        fp16_scale_growth: how much the logarithm (base 2) of fp16's loss scale grows a step, from 0 to 1
        dice_weight: how much of a soft Dice loss of the predicted mask is added to the diffusion loss; 0: none
        lr: learning rate of AdamW
        lr_schedule: how the learning rate falls to 0, or that it does not; by default linear if lr_anneal_steps is
            given, else constant
        lr_anneal_steps: the step at which it reaches 0; 0: at the last one
        warmup_steps: steps over which the learning rate first rises, linearly
        weight_decay: decoupled weight decay of AdamW
        decay: which parameters decay: all, or weights of layers (matrices) and not biases and norms
        clip_grad: largest norm of the gradient, above which it is scaled down; 0: no limit
        ema_rate: decay of the averaged weights; several with commas between
        ema_warmup: let the average follow faster at first: at most (1 + step) / (10 + step)
        schedule_sampler: how timesteps to train on are drawn
        seed: seed of all random numbers
        log_interval: steps between two rows of log.csv
        save_interval: steps between two checkpoints
        keep: newest checkpoints to keep, besides the best one; 0: all
        tensorboard: write TensorBoard curves too
    """

    out_dir: str = "results"
    steps: int = 100_000
    batch_size: int = 8
    microbatch: int = -1
    use_checkpoint: bool = False
    precision: Precision = "fp32"
    fp16_scale_growth: float = 1e-3
    dice_weight: float = 0.0
    lr: float = 1e-4
    lr_schedule: LearningRate = ""
    lr_anneal_steps: int = 0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    decay: Decayed = "all"
    clip_grad: float = 0.0
    ema_rate: str = "0.9999"
    ema_warmup: bool = True
    schedule_sampler: TimestepSampler = "uniform"
    seed: int = 0
    log_interval: int = 100
    save_interval: int = 5000
    keep: int = 3
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "batch_size", "log_interval", "save_interval")
        _at_least(self, 0, "lr", "weight_decay", "lr_anneal_steps", "warmup_steps", "clip_grad", "dice_weight", "keep")
        check_choices(self)
        if not 0 <= self.fp16_scale_growth <= 1:
            raise InputError(f"--fp16-scale-growth {self.fp16_scale_growth}: must be from 0 to 1")
        if self.lr_schedule == "constant" and self.lr_anneal_steps:
            raise InputError(
                f"--lr-anneal-steps {self.lr_anneal_steps}: contradicts --lr-schedule constant; leave out one of them"
            )
        if self.warmup_steps and self.annealed and self.warmup_steps >= self.annealed:
            raise InputError(
                f"--warmup-steps {self.warmup_steps}: must be less than the {self.annealed} steps after which the "
                "learning rate is 0"
            )
        _ = self.ema_rates

    @property
    def ema_rates(self) -> list[str]:
        """The decay rates, as written."""
        rates = [part.strip() for part in self.ema_rate.split(",") if part.strip()]
        for rate in rates:
            try:
                valid = 0 <= float(rate) < 1
            except ValueError:
                valid = False
            if not valid:
                raise InputError(f'--ema-rate "{self.ema_rate}": must be numbers from 0 to below 1, commas between')
        return rates

    @property
    def annealed(self) -> int:
        """The step at which the learning rate reaches 0; 0: it never does."""
        if self.lr_schedule in ("linear", "cosine"):
            return self.lr_anneal_steps or self.steps
        return self.lr_anneal_steps


@dataclass(frozen=True)
class ValidationConfig:
    """How to watch a training, on images held out from it.

    Args:
        val_interval: steps between two validations; 0: none, and all images are trained on
        val_fraction: share of the training images that is held out, chosen by name
        val_images: held-out images that are segmented, the same each time; 0: all
        val_steps: network evaluations a mask
        patience: validations without a better Dice after which training stops; 0: it goes on
    """

    val_interval: int = 0
    val_fraction: float = 0.1
    val_images: int = 16
    val_steps: int = 5
    patience: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 0, "val_interval", "val_images", "patience")
        _at_least(self, 2, "val_steps")  # DDIM with one takes noise for an almost clean mask
        if not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction}: must be between 0 and 1")
        if self.patience and not self.val_interval:
            raise InputError(f"--patience {self.patience}: counts validations; give --val-interval too")


def _at_least(config: object, least: int, *names: str) -> None:
    wanted = "must not be negative" if not least else f"must be at least {least}"
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} {value}: {wanted if value < least else 'must be finite'}")
