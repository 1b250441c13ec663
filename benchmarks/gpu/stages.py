"""The stages of a visit. Each yields rows; what has a row already is not done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from benchmarks.gpu.results import PIECES, Row
from benchmarks.gpu.visit import ROOT, Visit
from benchmarks.sides import Work
from medsegdiff.config.choices import Precision

Rows = Iterator[Row]


class Job(NamedTuple):
    """What a stage is given."""

    visit: Visit
    seconds: float
    """After which it will be cut off."""
    known: Callable[[str], bool]
    """Whether the row of this name is there from before."""


def stage(visit: Visit, name: str, seconds: float) -> int:
    """Run a stage in this process and keep its rows; returns the exit code: 1 if one has an error."""
    results = visit.results
    failed = False
    for row in STAGES[name](Job(visit, seconds, partial(results.has, name))):
        results.add(name, row)
        failed |= "error" in row
    return int(failed)


def attempted(name: str, work: Callable[[], Row]) -> Row:
    """The row that `work` gives, or one with the error that stopped it: what comes after may still work."""
    begun = time.perf_counter()
    try:
        row = work()
    except Exception as error:
        traceback.print_exc()
        row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return {"name": name, **row, "took": round(time.perf_counter() - begun, 2)}


def command(visit: Visit, *words: object, jittor: bool = True) -> None:
    """Run a module of this Python; what it says goes to the log.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, check=True, env=visit.environment(jittor))


def flags(options: Row) -> list[str]:
    """Options as a command's words."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def _check(job: Job) -> Rows:
    from medsegdiff.doctor import device_check

    for check in device_check.checks():
        if not job.known(check.name):
            yield attempted(check.name, lambda check=check: _outcome(device_check.examine(check)))


def _outcome(outcome: object) -> Row:
    figures = {"value": f"{outcome.value:.2e}", "gradient": f"{outcome.gradient:.2e}"}
    return figures if outcome.passed else {**figures, "error": "wrong"}


def _parity(job: Job) -> Rows:
    for name in job.visit.plan.cases:
        if not job.known(name):
            yield attempted(name, partial(_replayed, ROOT / "tests" / "parity" / "cases" / f"{name}.npz"))


def _replayed(path: Path) -> Row:
    from medsegdiff.parity import cases, replay, training

    case = cases.load(path)
    rows = training.train(case) if case.kind == "train" else replay.KINDS[case.kind](case)
    figures = [
        f"{row.quantity}: {'-' if row.error is None else f'{row.error:.2e}'} of {row.tolerance:.0e} {row.note}".rstrip()
        for row in rows
    ]
    wrong = [figure for figure, row in zip(figures, rows) if not (row.passed or row.excused)]
    return {"compared": figures, **({"error": "; ".join(wrong)} if wrong else {})}


def _precision(job: Job) -> Rows:
    """The first losses and gradients of one training in each precision: how much rounding changes them."""
    for precision in job.visit.plan.precisions:
        if not job.known(precision):
            yield attempted(precision, partial(_begun, job.visit.plan.profiled, precision))


def _begun(work: Work, precision: Precision) -> Row:
    from medsegdiff.config.network import NetworkConfig
    from medsegdiff.config.run import RunConfig
    from medsegdiff.config.training import TrainingConfig
    from medsegdiff.training.dry_run import noise_batch
    from medsegdiff.training.trainer import Trainer

    network = NetworkConfig(image_size=work.size, num_channels=work.width)
    config = RunConfig(network=network, training=TrainingConfig(batch_size=work.batch, precision=precision))
    trainer = Trainer(config)
    steps = [trainer.train_step(noise_batch(config, number)) for number in range(5)]
    return {"losses": [step.total for step in steps], "gradients": [step.norms["grad_norm"] for step in steps]}


def _profile(job: Job) -> Rows:
    """Launches of a training step, the kernels that take longest, and a step of two images: almost only launches."""
    for precision in job.visit.plan.precisions:
        if not job.known(f"step, {precision}"):
            yield attempted(f"step, {precision}", partial(_profiled, job, precision))


def _profiled(job: Job, precision: Precision) -> Row:
    from benchmarks.sides import Variant, make_side
    from medsegdiff.runtime.backend import jt

    side, work = make_side("medsegdiff", threads=os.cpu_count() or 1), job.visit.plan.profiled

    def seconds(step: Callable[[], None]) -> float:
        begun = time.perf_counter()
        step()
        side.finish()
        return time.perf_counter() - begun

    def least(work: Work) -> tuple[float, Callable[[], None]]:
        step = side.build(Variant("ours", "medsegdiff", precision), work)
        return min([seconds(step) for _ in range(5)][2:]), step

    (two, _), (wall, step) = least(replace(work, batch=2)), least(work)
    with jt.profile_scope() as report:
        seconds(step)
    side.forget()
    header, *lines = report
    count, total = header.index("Count"), header.index("TotalTime")
    lines.sort(key=lambda line: -float(line[total]))
    kernels = sum(float(line[total]) for line in lines) / 1e6
    longest = [{"kernel": line[0][:160], "count": int(line[count]), "ms": float(line[total]) / 1e6} for line in lines]
    launches = sum(row["count"] for row in longest)
    figures = {"ms": 1e3 * wall, "kernels_ms": kernels, "two_images_ms": 1e3 * two, "launches": launches}
    return {**figures, "longest": longest[:30]}


def _isic(job: Job) -> Rows:
    """A training for as long as there is time, then masks of test images and their scores."""
    run, data, masks = (job.visit.work / name for name in ("run", "data", "masks"))
    if not data.is_dir():
        return
    if not job.known("training"):
        yield attempted("training", partial(_trained, job, run, data))
    if not job.known("scores"):
        yield attempted("scores", partial(_scored, job.visit, data, masks))


def _trained(job: Job, run: Path, data: Path) -> Row:
    folders = {"data_dir": data, "out_dir": run}
    words = ["-m", "medsegdiff", "train", *flags({**job.visit.plan.training, **folders})]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    begun = time.monotonic()
    try:
        process.wait(0.7 * job.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it saves a checkpoint
        process.wait(0.1 * job.seconds)
    steps = max((int(path.name[5:]) for path in run.glob("step-*")), default=0)
    if process.returncode not in (0, 128 + signal.SIGINT) or not steps:
        raise RuntimeError(f"medsegdiff train ended with exit code {process.returncode} after {steps} steps")
    return {"steps": steps, "seconds": round(time.monotonic() - begun, 1)}


def _scored(visit: Visit, data: Path, masks: Path) -> Row:
    import json

    folders = {"data_dir": data, "out_dir": masks}
    command(
        visit, "medsegdiff", "sample", f"--model-path={visit.work / 'run'}", *flags({**visit.plan.sampling, **folders})
    )
    command(visit, "medsegdiff", "evaluate", f"--pred-path={masks}", f"--data-dir={data}", jittor=False)
    metrics = json.loads((masks / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return {name: metrics[name]["mean"] for name in ("published_iou", "published_dice", "iou", "dice")}


def _setup(job: Job) -> Rows:
    from benchmarks.gpu import setup

    return setup.setup(job)


def _cache(job: Job) -> Rows:
    from benchmarks.gpu import pieces

    count, size = pieces.pack(job.visit.home, job.visit.work / PIECES)
    yield {"name": "pieces", "count": count, "MiB": round(size / 2**20, 1)}


def _speed(job: Job) -> Rows:
    from benchmarks.gpu import speed

    return speed.speed(job)


STAGES: dict[str, Callable[[Job], Rows]] = {
    "setup": _setup,
    "check": _check,
    "parity": _parity,
    "speed": _speed,
    "precision": _precision,
    "profile": _profile,
    "isic": _isic,
    "cache": _cache,
}
