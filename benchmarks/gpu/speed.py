"""Time and memory of a training step, this package and PyTorch by turns."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks.gpu.results import Row
from benchmarks.sides import Variant, Work, Worker

if TYPE_CHECKING:
    from benchmarks.gpu.stages import Job

_WARM_UP = 3


def speed(job: Job) -> Iterator[Row]:
    """A row for each work and variant, then their ratios; a PyTorch that is not there is left out."""
    from benchmarks.gpu.stages import attempted

    plan, threads = job.visit.plan, os.cpu_count() or 1
    variants = [variant for variant in plan.variants if variant.framework != "torch" or find_spec("torch")]
    workers: dict[str, Worker] = {}
    try:
        for work in plan.works:
            for variant in variants:
                name = f"{work.size} px, batch {work.batch}, width {work.width}: {variant.name}"
                if job.known(name):
                    continue
                worker = workers.get(variant.framework) or Worker(variant.framework, threads)
                workers[variant.framework] = worker
                yield attempted(name, partial(_measured, worker, variant, work, plan.rounds))
    finally:
        for worker in workers.values():
            worker.close()


def _measured(worker: Worker, variant: Variant, work: Work, rounds: int) -> Row:
    """The median over the rounds, once all is compiled; memory is that of this variant alone."""
    first = worker.seconds(variant, work)
    for _ in range(_WARM_UP - 1):
        worker.seconds(variant, work)
    times = sorted(worker.seconds(variant, work) for _ in range(rounds))
    peak = worker.peak()
    worker.forget()
    figures = {"ms": 1e3 * statistics.median(times), "from": 1e3 * times[0], "to": 1e3 * times[-1]}
    return {**figures, "first_s": round(first, 1), "peak_MiB": round(peak / 2**20)}
