"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from medsegdiff.config.training import TrainingConfig


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The learning rate of training step `step`, counted from 0.

    It rises linearly to `lr` over the first `warmup_steps`, then falls to 0 at step `annealed`, on a line or on half
    a cosine (Loshchilov & Hutter 2017, eq. 5, without restarts), if it falls at all.
    """
    if step < training.warmup_steps:
        return training.lr * (step + 1) / training.warmup_steps
    if not training.annealed:
        return training.lr
    done = (step - training.warmup_steps) / (training.annealed - training.warmup_steps)
    if training.lr_schedule == "cosine":
        return training.lr * (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return training.lr * max(0.0, 1 - done)
