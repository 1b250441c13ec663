"""Seconds of a forward pass and of a training step, with and without busy processes: PyTorch and this package.

    python -m benchmarks.loaded [--tasks forward step] [--widths 32 128] [--batch 4] [--busy 2]
        [--sides torch ours ours,GOMP_SPINCOUNT=0] [--rounds 10] [--out FILE.json]

A side is `torch` or `ours`, with what is put into its environment: how its threads wait (OMP_WAIT_POLICY,
GOMP_SPINCOUNT: https://gcc.gnu.org/onlinedocs/libgomp/Environment-Variables.html) and how many there are
(OMP_NUM_THREADS). In each round all take turns, first alone and then beside the busy processes, which do nothing but
count; each has a process of its own, stopped while another works. A time is the median of the rounds, a ratio is one
of medians to the first side.

The machine's load average before each round is in the JSON file: what else runs there is part of what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.sides import Variant, Work, Worker
from benchmarks.step import WARM_UP, machine

FRAMEWORKS = {"torch": "torch", "ours": "medsegdiff"}
SIDES = ["torch", "ours", *(f"ours,GOMP_SPINCOUNT={count}" for count in (0, 1000, 10_000, 100_000, 300_000))]
LOADS = ("alone", "loaded")


@dataclasses.dataclass(frozen=True)
class Side:
    """One framework in one environment."""

    variant: Variant
    environment: dict[str, str]

    @classmethod
    def parse(cls, text: str, precision: str) -> Side:
        """What `text`, such as "ours,GOMP_SPINCOUNT=0", names."""
        framework, *assignments = text.split(",")
        if framework not in FRAMEWORKS or not all("=" in each for each in assignments):
            raise argparse.ArgumentTypeError(f"{text}: not torch or ours, followed by ,NAME=VALUE or nothing")
        environment = dict(each.split("=", 1) for each in assignments)
        return cls(Variant(text, FRAMEWORKS[framework], precision), environment)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes compute, one thread each, within the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(sides: Sequence[Side], work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """The seconds of each side in each round, alone and loaded, and the load average before each round."""
    result: dict[str, Any] = {load: {side.variant.name: [] for side in sides} for load in LOADS}
    result["load averages"] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for side in sides:
            environment = {"OMP_NUM_THREADS": str(options.threads), **side.environment}
            threads = int(environment["OMP_NUM_THREADS"])
            workers.append(Worker(side.variant.framework, threads, environment))
            stack.callback(workers[-1].close)
            for _ in range(WARM_UP):
                workers[-1].seconds(side.variant, work)
            workers[-1].stop()
        for turn in range(options.rounds):
            result["load averages"].append(os.getloadavg()[0])
            for load in LOADS:
                with busy(options.busy if load == "loaded" else 0):
                    for side, worker in zip(sides, workers):
                        worker.go_on()
                        times = [worker.seconds(side.variant, work) for _ in range(options.repeats)]
                        worker.stop()
                        result[load][side.variant.name].append(sum(times) / len(times))
                        print(f"{work.task}, round {turn}, {load}: {side.variant.name} {times}", file=sys.stderr)
    return result


def table(result: dict[str, Any]) -> str:
    """Medians and ratios to the first side, alone and loaded."""
    work, loads = result["work"], result["load averages"]
    medians = {load: {name: float(np.median(times)) for name, times in result[load].items()} for load in LOADS}
    first = next(iter(medians["alone"]))
    lines = [
        f"{work['task']}, {work['size']} x {work['size']}, width {work['width']}, batch {work['batch']}; "
        f"load average {min(loads):.1f} to {max(loads):.1f}",
        "",
        f"| side | alone, ms | x {first} | loaded, ms | x {first} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in medians["alone"]:
        cells = [
            cell
            for load in LOADS
            for cell in (f"{1e3 * medians[load][name]:.0f}", f"{medians[load][name] / medians[load][first]:.2f}")
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["forward", "step"], choices=["forward", "step"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[4])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--sides", nargs="+", default=SIDES, help="see above; the first is what others are compared to")
    parser.add_argument("--busy", type=int, default=2, help="how many busy processes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1, help="runs in succession, of which a round takes the mean")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    try:
        sides = [Side.parse(text, options.precision) for text in options.sides]
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    works = [
        Work(task, options.size, batch, width)
        for task in options.tasks
        for width in options.widths
        for batch in options.batches
    ]
    results = []
    for work in works:
        results.append({"work": dataclasses.asdict(work), **measure(sides, work, options)})
        print(table(results[-1]), flush=True)
        if options.out:
            content = {"machine": machine(options.threads), "busy": options.busy, "results": results}
            options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
