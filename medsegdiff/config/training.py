"""The options of a training, and of its validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medsegdiff.base.bounds import MOST, SEEDS, bounded, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.config.choices import Precision

LearningRate = Literal["", "constant", "linear", "cosine"]
AnchorLoss = Literal["", "dice_ce", "mse"]
Decayed = Literal["all", "matrices"]
TimestepSampler = Literal["uniform", "high-noise", "loss-second-moment"]
_LARGEST_BATCH, _HEAVIEST, _MOST_AVERAGES = 65536, 1000, 8


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        out_dir: folder for checkpoints and logs; if it holds checkpoints, training continues from the newest
        steps: training steps to reach
        batch_size: images per step
        microbatch: images computed at once; gradients are accumulated over the batch; -1: the whole batch
        use_checkpoint: compute activations again in the backward pass instead of keeping them: less memory, more time
        precision: number format of convolutions and attention; weights and everything else are float32
        fp16_scale_growth: growth of the base-2 logarithm of fp16's loss scale per step, from 0 to 1
        dice_weight: weight of a soft Dice loss of the predicted mask, added to the diffusion loss; 0: none
        anchor_loss: what trains the conditioning network's mask: dice_ce (soft Dice and cross-entropy, version v2's
            paper and default) or mse (ten times the mean squared error, as the public code and every other version)
        anchor_alpha: dice_ce uses only samples whose timestep is divisible by this (paper)
        anchor_beta: weight of the cross-entropy beside the soft Dice loss (paper)
        lr: learning rate of AdamW
        lr_schedule: how the learning rate decreases to 0, if it does; default: linear if `lr_anneal_steps` is given,
            else constant
        lr_anneal_steps: the step at which it reaches 0; 0: the last one
        warmup_steps: steps over which the learning rate first increases, linearly
        weight_decay: decoupled weight decay of AdamW
        decay: which parameters decay: all, or weights of layers (matrices) and not biases and norms
        clip_grad: scale the gradient down if its norm is larger than this; 0: never
        ema_rate: decay of the averaged weights; several separated by commas
        ema_warmup: limit the decay at first, to (1 + step) / (10 + step)
        schedule_sampler: how timesteps to train on are drawn: uniform; high-noise, in proportion to t + 1; or
            loss-second-moment, in proportion to their losses, which the loss then makes up for
        seed: seed of all random numbers
        log_interval: steps between two rows of log.csv
        save_interval: steps between two checkpoints
        keep: newest checkpoints to keep, besides the best one; 0: all
        tensorboard: write TensorBoard curves too
    """

    out_dir: str = "results"
    steps: int = bounded(100_000, 1, MOST)
    batch_size: int = bounded(8, 1, _LARGEST_BATCH)
    microbatch: int = bounded(-1, -1, _LARGEST_BATCH)
    use_checkpoint: bool = False
    precision: Precision = "fp32"
    fp16_scale_growth: float = 1e-3
    dice_weight: float = bounded(0.0, 0, _HEAVIEST)
    anchor_loss: AnchorLoss = ""
    anchor_alpha: int = bounded(5, 1, MOST)
    anchor_beta: float = bounded(10.0, 0, _HEAVIEST)
    lr: float = bounded(1e-4, 1e-12, 1)  # AdamW moves each weight by about as much in a step
    lr_schedule: LearningRate = ""
    lr_anneal_steps: int = bounded(0, 0, MOST)
    warmup_steps: int = bounded(0, 0, MOST)
    weight_decay: float = bounded(0.0, 0, _HEAVIEST)
    decay: Decayed = "all"
    clip_grad: float = bounded(0.0, 0, MOST)
    ema_rate: str = "0.9999"
    ema_warmup: bool = True
    schedule_sampler: TimestepSampler = "uniform"
    seed: int = bounded(0, *SEEDS)
    log_interval: int = bounded(100, 1, MOST)
    save_interval: int = bounded(5000, 1, MOST)
    keep: int = bounded(3, 0, MOST)
    tensorboard: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.microbatch == 0:
            raise InputError("`microbatch` 0: must be at least 1, or -1 for the whole batch")
        if not 0 <= self.fp16_scale_growth <= 1:
            raise InputError(f"`fp16_scale_growth` {self.fp16_scale_growth}: must be from 0 to 1")
        if self.lr * self.weight_decay >= 1:
            raise InputError(f"`weight_decay` {self.weight_decay}: times `lr` {self.lr} it must be less than 1")
        if self.lr_schedule == "constant" and self.lr_anneal_steps:
            raise InputError(
                f"`lr_anneal_steps` {self.lr_anneal_steps}: contradicts `lr_schedule` constant; leave out one of them"
            )
        if self.warmup_steps and self.annealed and self.warmup_steps >= self.annealed:
            raise InputError(
                f"`warmup_steps` {self.warmup_steps}: must be less than the {self.annealed} steps after which the "
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
            if not valid or len(rates) > _MOST_AVERAGES:
                raise InputError(
                    f'`ema_rate` "{self.ema_rate[:40]}": must be numbers from 0 to below 1, commas between, '
                    f"at most {_MOST_AVERAGES}"
                )
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
        val_fraction: share of the training images (by patient) that is held out, chosen by name
        val_images: how many held-out images to segment, the same each time; 0: all
        val_steps: network evaluations per mask
        patience: stop after this many validations without a better Dice; 0: never
    """

    val_interval: int = bounded(0, 0, MOST)
    val_fraction: float = 0.1
    val_images: int = bounded(16, 0, MOST)
    val_steps: int = bounded(5, 2, MOST)  # DDIM with one takes noise for an almost clean mask
    patience: int = bounded(0, 0, MOST)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.val_fraction < 1:
            raise InputError(f"`val_fraction` {self.val_fraction}: must be between 0 and 1")
        if self.patience and not self.val_interval:
            raise InputError(f"`patience` {self.patience}: counts validations; give `val_interval` too")
