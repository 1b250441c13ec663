"""Several processes train together: process 0 leads, the others follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batches, Dataset
from medsegdiff.runtime import exchange
from medsegdiff.training.interruption import stop_requests, undisturbed
from medsegdiff.training.shares import rows_of
from medsegdiff.training.trainer import Trainer


def follow(config: RunConfig, dataset: Dataset) -> Path:
    """Compute this process's share of the steps, as long as process 0 goes on."""
    trainer, batches = Trainer(config), own_batches(config, dataset)
    trainer.follow_the_leader()
    with stop_requests() as requests:
        while all_go_on(trainer, requests):
            with undisturbed():
                trainer.train_step(batches[trainer.step])
        exchange.tell(None)  # while the leader still saves, a signal must not end this process, and with it the job
    return Path(config.training.out_dir) / f"step-{trainer.step:06d}"


def own_batches(config: RunConfig, dataset: Dataset) -> Batches:
    """This process's share of each batch."""
    training, data = config.training, config.data
    rows = rows_of(ranks.rank(), training.batch_size, training.microbatch)
    augmentation = {"augmented": data.augment, **data.variants}
    return Batches(dataset, training.batch_size, training.seed, rows=rows.tolist(), **augmentation)


def all_go_on(trainer: Trainer, requests: list[int], willing: bool = True, saved: bool = False) -> bool:
    """Whether all processes take another step: process 0 decides, which hears of `requests` to any of them.

    Where it has `saved` this step, all go on from there, as in a resumed run, whatever rounding did to them.
    """
    heard = exchange.gather(np.array([requests[0] if requests else 0]))
    requests.extend(int(number) for number in heard.ravel() if number)
    going_on, saved = exchange.tell([willing and not requests, saved])
    if going_on and saved:
        trainer.follow_the_leader()
    return going_on
