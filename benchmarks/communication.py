"""What processes that train together exchange in a step, and how long that takes.

    mpirun -np 2 python -m benchmarks.communication --num-channels 32 --batch-size 8
    python -m benchmarks.communication --num-channels 32 --batch-size 8

The second line gives the step of one process with the same batch. Times are medians of the rounds, in one run, of
process 0; the exchanges are timed again on their own, so waiting for a slower process is not in them, but in the step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt
from medsegdiff.training.dry_run import noise_batch
from medsegdiff.training.shares import check_shares
from medsegdiff.training.trainer import Trainer


def noted_sums(step: Callable[[], Any]) -> list[Any]:
    """The values that `step` sums over the processes."""
    found, total = [], exchange.total

    def noted(value: Any) -> Any:
        found.append(value)
        return total(value)

    exchange.total = noted
    try:
        step()
    finally:
        exchange.total = total
    return found


def seconds(task: Callable[[], Any], rounds: int) -> float:
    """The median time of `task`, which all processes begin together."""
    times = []
    for _ in range(rounds):
        exchange.gather(np.zeros(1))
        begun = time.perf_counter()
        task()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-channels", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    config = RunConfig(
        network=NetworkConfig(image_size=options.image_size, num_channels=options.num_channels),
        diffusion=DiffusionConfig(diffusion_steps=100),
        training=TrainingConfig(batch_size=options.batch_size),
    )
    check_shares(config)
    trainer, batch = Trainer(config), noise_batch(config, 0)
    trainer.train_step(batch)
    sums = noted_sums(lambda: trainer.train_step(batch)) if ranks.count() > 1 else []
    norms = [jt.zeros(value.shape).float64() for value in sums if str(value.dtype) == "float64"]
    gradients = {name: jt.ones_like(value) for name, value in trainer.parameters.items()}
    jt.sync_all(True)

    def exchange_norms() -> None:
        for value in norms:
            exchange.total(value).sync()

    def exchange_gradients() -> None:
        exchange.mean(gradients)

    exchange_norms()
    exchange_gradients()
    figures = {
        "processes": ranks.count(),
        "parameters": sum(value.numel() for value in gradients.values()),
        "step, s": round(seconds(lambda: trainer.train_step(batch), options.rounds), 3),
        "gradients, MB": round(4e-6 * sum(value.numel() for value in sums if str(value.dtype) == "float32"), 1),
        "gradients, exchanges": len(sums) - len(norms),
        "gradients, s": round(seconds(exchange_gradients, options.rounds), 3),
        "batch norms, MB": round(8e-6 * sum(value.numel() for value in norms), 3),
        "batch norms, exchanges": len(norms),
        "batch norms, s": round(seconds(exchange_norms, options.rounds), 4),
    }
    if ranks.rank() == 0:
        for name, value in figures.items():
            print(f"{name:24}{value}")


if __name__ == "__main__":
    main()
