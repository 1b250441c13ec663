"""Measures the cost of a training by a few real steps; writes nothing."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.base.randomness import generator
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batch
from medsegdiff.kernels.operations import device
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.toolchain import announce_kernels
from medsegdiff.training.trainer import Trainer

WARM_UP, TIMED = 2, 5


def dry_run(config: RunConfig, images: int) -> Iterator[tuple[str, str]]:
    """Train a few steps on noise of the images' size; yields (what, how much) as it becomes known.

    There are so many `images` to train on. The run's folder is neither read nor written.
    """
    training = config.training
    trainer = Trainer(config)
    count = sum(math.prod(value.shape) for value in trainer.parameters.values())
    held = [*trainer.state.values(), *trainer.optimiser.state().values()]
    held += [value for average in trainer.averages.values() for value in average.values.values()]
    held += trainer.parameters.values()  # their gradients
    yield "parameters", f"{count:,}"
    yield "images", f"{images:,}"
    epoch = images / training.batch_size
    yield "steps per epoch", f"{epoch:,.1f} of {training.batch_size} images; {training.steps / epoch:,.1f} epochs"
    held_gib = 4 * sum(math.prod(value.shape) for value in held) / 2**30
    yield "memory held", f"{held_gib:.2f} GiB: weights, their gradients, moments and averages"  # if steps need too much
    announce_kernels()
    seconds = []
    for step in range(WARM_UP + TIMED):
        begun = time.perf_counter()
        trainer.train_step(noise_batch(config, step))
        seconds.append(time.perf_counter() - begun)
    yield "memory, peak", f"{peak_gib():.2f} GiB, with everything"
    each = statistics.median(seconds[WARM_UP:])
    yield "time per step", f"{each:.3f} s; {_duration(each * training.steps)} for {training.steps:,} steps"


def noise_batch(config: RunConfig, step: int) -> Batch:
    """This process's rows of a batch of noise, of the images' size."""
    network, count = config.network, config.training.batch_size // ranks.count()
    rng = generator("dry run", step)
    images = rng.random((count, network.image_channels, network.image_size, network.image_size), np.float32)
    masks = rng.random((count, network.mask_channels, network.image_size, network.image_size)) > 0.5
    return Batch(images, masks.astype(np.float32))


def peak_gib() -> float:
    """The most memory that this process held so far: the GPU's where there is one, else the main memory's."""
    if device().NAME == "cuda":
        return jt.get_mem_info().total_cuda_used / 2**30
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**20


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
