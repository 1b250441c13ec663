"""Trainings that one or several processes share: what `test_mpi` runs, alone or under `mpirun`.

    python -m tests.e2e.sharing KIND=FOLDER...

trains the KIND of training into each FOLDER, one after another.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from medsegdiff.app.cli import report
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig, ValidationConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.nn import weights
from medsegdiff.runtime import exchange
from medsegdiff.training import loop
from medsegdiff.training.trainer import Trainer
from tests.conftest import Discs
from tests.training.variants import draw_nothing, with_network, with_training

STEPS, DEATH = 20, 7


def rich(out):
    """A run with everything at work that processes must do alike."""
    return RunConfig(
        network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1, dropout=0.1),
        diffusion=DiffusionConfig(diffusion_steps=4, noise_schedule="cosine"),  # few: the timestep sampler learns soon
        data=DataConfig(augment=True),
        training=TrainingConfig(
            out_dir=str(out),
            steps=STEPS,
            batch_size=4,
            lr=3e-5,
            lr_schedule="cosine",
            warmup_steps=3,
            weight_decay=0.01,
            clip_grad=1.0,
            ema_rate="0.9,0.99",
            schedule_sampler="loss-second-moment",
            log_interval=1,
            save_interval=5,
            keep=0,
            tensorboard=False,
        ),
        validation=ValidationConfig(val_interval=10, val_steps=2),
    )


def in_parts(out):
    """Micro-batches, the last one smaller, with activations computed twice, of the network's other version.

    It learns next to nothing: its gradients are large, and would soon tell of nothing but rounding.
    """
    config = with_training(rich(out), steps=4, batch_size=6, microbatch=4, use_checkpoint=True, lr=1e-7)
    return with_network(config, version="v1")


class Spoilt(Discs):
    """Discs of which one is not finite."""

    def image(self, index):
        return super().image(index) * (np.float32("nan") if index == 3 else np.float32(1))


class Unreadable(Discs):
    """Discs that one of two processes cannot read any more after a while."""

    reads = 0

    def image(self, index):
        self.reads += 1
        if ranks.rank() == 1 and self.reads > 5:
            raise InputError(f"{self.ids[index]}: cannot be read; repair the disk")
        return super().image(index)


def break_a_weight(out):
    """Process 1 alone finds a weight that is not finite, as a faulty machine makes it."""
    descend = Trainer.descend

    def broken(trainer, *given):
        norms = descend(trainer, *given)
        if ranks.rank() == 1 and trainer.step == DEATH:
            bias = trainer.state["out.2.bias"]
            bias.assign(bias + float("nan"))
            norms["param_norm"] = float("nan")
        return norms

    Trainer.descend = broken


def die_in_a_step(out):
    """Process 1 is killed within a step; the others then wait for it."""
    step = Trainer.measure

    def measure(trainer, *samples):
        if ranks.rank() == 1 and trainer.step == DEATH:
            (out / "died").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, *samples)

    Trainer.measure = measure


KINDS = {
    "rich": (rich, Discs),
    "killed": (rich, Discs),
    "broken": (rich, Discs),
    "parts": (in_parts, Discs),
    "spoilt": (lambda out: with_training(rich(out), steps=6), Spoilt),
    "unreadable": (rich, Unreadable),
}


def train(kind, out):
    """Train, and write down what each process then holds."""
    draw_nothing()
    configure, dataset = KINDS[kind]
    trainers = []
    initialise = Trainer.__init__

    def noted(trainer, *arguments):
        initialise(trainer, *arguments)
        trainers.append(trainer)

    Trainer.__init__ = noted
    try:
        if kind == "killed":
            die_in_a_step(out)
        if kind == "broken":
            break_a_weight(out)
        data = dataset()
        loop.train(configure(out), data, data)
    finally:
        Trainer.__init__ = initialise
    (trainer,) = trainers
    held = weights.to_arrays({**trainer.state, **trainer.optimiser.state()})
    digest = hashlib.sha256(b"".join(held[name].tobytes() for name in sorted(held))).hexdigest()
    digests = exchange.collect(digest)
    if ranks.rank() == 0:
        (out / "digests.json").write_text(json.dumps(digests))


def main(words):
    for word in words:
        kind, _, folder = word.partition("=")
        train(kind, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(report(lambda: main(sys.argv[1:])))
