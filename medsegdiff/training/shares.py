"""Which rows of the global batch each process computes.

What is computed at once, a micro-batch or the whole batch, is cut into equal parts, one for each process. So every
process computes as much as any other, and statistics over the parts are those of one process that computes them all.
"""

from __future__ import annotations

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.config.run import RunConfig
from medsegdiff.runtime import exchange


def check_shares(config: RunConfig) -> None:
    """Refuse batches that cannot be cut into equal parts, or parts that batch norm cannot train on.

    Raises:
        InputError: the batch or the micro-batch is no multiple of the number of processes, or what is computed at
            once, by all processes together, is one value a channel in the deepest map.
    """
    training, count = config.training, ranks.count()
    for option, value in (("batch_size", training.batch_size), ("microbatch", training.microbatch)):
        if value > 0 and value % count:
            raise InputError(f"`{option}` {value}: must be a multiple of the {count} processes that share it")
    batch, size = training.batch_size, config.network.image_size
    micro = min(training.microbatch, batch) if training.microbatch > 0 else batch
    smallest = batch % micro or micro
    if smallest * config.network.deepest_size**2 > 1:
        return
    if micro == batch:
        cause, remedy = "`batch_size` 1", "use at least 2"
    elif micro == 1:
        cause, remedy = "`microbatch` 1", "use at least 2"
    else:
        cause, remedy = f"`batch_size` {batch}, `microbatch` {micro}: the last part is one image", "use a multiple"
    raise InputError(
        f"{cause}: batch norm cannot train on one image of {size} x {size} pixels alone; {remedy}, or `image_size` 64"
    )


def rows_of(process: int, batch: int, microbatch: int) -> np.ndarray:
    """The rows, from 0 to `batch`, that `process` computes, in order; a `microbatch` below 1 is the whole batch."""
    size = microbatch if microbatch > 0 else batch
    parts = (np.arange(start, min(start + size, batch)) for start in range(0, batch, size))
    return np.concatenate([np.split(part, ranks.count())[process] for part in parts])


def whole(values: np.ndarray, microbatch: int) -> np.ndarray:
    """Values (K, rows of this process) of all processes, as (K, rows of the batch)."""
    gathered = exchange.gather(values)
    batch = gathered.shape[0] * gathered.shape[2]
    result = np.empty((len(values), batch), values.dtype)
    for process, part in enumerate(gathered):
        result[:, rows_of(process, batch, microbatch)] = part
    return result
