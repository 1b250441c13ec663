"""The visit itself: one stage after the other, each in a process of its own with its own time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional

from benchmarks.gpu.plan import ON_GPU, REHEARSAL, STAGES, Plan, Stage
from benchmarks.gpu.results import LOG, Results, publish
from medsegdiff.base.screen import note
from medsegdiff.runtime import compilers

ROOT = Path(__file__).parents[2]
_POLL = 0.5  # seconds between two looks at a stage
_GRACE = 2.0  # seconds in which a stage may end by itself


class Visit(NamedTuple):
    """Where a visit works, and what it does."""

    work: Path
    """Its own folder: packages, caches, data, results."""
    carried: Path
    """What travelled: see `carry`."""
    rehearsal: bool = False

    @property
    def plan(self) -> Plan:
        """The extent."""
        return REHEARSAL if self.rehearsal else ON_GPU

    @property
    def results(self) -> Results:
        """What is known."""
        return Results(self.work / "results")

    @property
    def home(self) -> Path:
        """Caches: Jittor's, but in a rehearsal, and that of prepared images."""
        return self.work / "home"

    def environment(self, jittor: bool = True) -> Mapping[str, str]:
        """That of every stage, or of a command that needs no Jittor."""
        packages = [str(self.work / name) for name in (("numpy", "site") if jittor else ("site",))]
        path = [*packages, str(ROOT), os.environ.get("PYTHONPATH", "")]
        ours = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "MEDSEGDIFF_CACHE": str(self.home / "images")}
        if not self.rehearsal:
            # Float32 means float32 on both sides; oneDNN, which is for CPUs, did not travel.
            ours.update(JITTOR_HOME=str(self.home), NVIDIA_TF32_OVERRIDE="0", use_mkl="0")
            ours[compilers.NUMBER] = str(os.cpu_count())  # a virtual machine may show less memory than it can have
        return {**os.environ, **ours}


def run(visit: Visit, out: Path, budget: float) -> int:
    """Do what is not done yet, within `budget` seconds; what is known is in `out` all the time.

    Returns the exit code: 1 if a stage failed.
    """
    visit.work.mkdir(parents=True, exist_ok=True)
    visit.results.take(visit.carried / "results.json")
    end, failed = time.monotonic() + budget, False
    for stage in STAGES:
        if visit.results.done(stage.name) and stage.name != "setup":
            note(f"{stage.name}: done before")
            continue
        kept = 0 if stage is STAGES[-1] else min(STAGES[-1].seconds, budget / 10)
        left = end - time.monotonic() - kept
        if left < 1:
            visit.results.end(stage.name, "no time was left", 0)
            continue
        begun = time.monotonic()
        # In a rehearsal everything is tried, however busy the machine is.
        state = _run_stage(visit, stage, left if visit.rehearsal else min(stage.seconds, left), out)
        visit.results.end(stage.name, state, time.monotonic() - begun)
        note(f"{stage.name}: {state}, {time.monotonic() - begun:.0f} s")
        publish(visit.work, visit.results, out)
        failed |= state.startswith("failed")
        if failed and stage.name == "setup":
            break
    publish(visit.work, visit.results, out)
    return int(failed)


def _run_stage(visit: Visit, stage: Stage, seconds: float, out: Path) -> str:
    """Run a stage for at most so long, publishing what it finds; returns how it ended."""
    command = [sys.executable, "-m", "benchmarks.gpu", "stage", stage.name, "--work", str(visit.work)]
    command += ["--carried", str(visit.carried), "--seconds", str(seconds)]
    command += ["--rehearsal"] if visit.rehearsal else []
    with (visit.work / LOG).open("a", encoding="utf-8") as log:
        log.write(f"\n== {stage.name}, at most {seconds:.0f} s\n")
        log.flush()
        # A session of its own, so that all that it started can be ended with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env=visit.environment(), stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + seconds
    try:
        while (code := _waited(process)) is None and time.monotonic() < deadline:
            publish(visit.work, visit.results, out)
    finally:
        _end(process)
    if code is None:
        return f"cut off after {seconds:.0f} s"
    return "done" if code == 0 else f"failed with exit code {code}"


def _waited(process: subprocess.Popen) -> Optional[int]:
    try:
        return process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen) -> None:
    """End a stage with all that it started; asked first, its commands end what they put in sessions of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    process.wait()
