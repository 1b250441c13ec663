"""Seconds and memory of a forward pass and of a training step: PyTorch and this package, side by side.

    python -m benchmarks.step [--tasks forward step] [--batches 1 4 8] [--sizes 64] [--widths 128]
        [--versions new v2] [--out FILE.json]

All variants take turns on the same work, after two runs that do not count; a time is the median of the rounds, a
ratio is one of medians. Each framework lives in a process of its own: while one works the other sleeps, so their
thread pools cannot meet. PyTorch is measured eager, in both of its layouts; ratios are to the faster one. Peak
memory is the resident size of a fresh process that does one variant's work and nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import Variant, Work, Worker

WARM_UP = 2
VARIANTS = (
    Variant("PyTorch fp32", "torch", "fp32"),
    Variant("ours fp32", "medsegdiff", "fp32"),
    Variant("PyTorch bf16", "torch", "bf16"),
    Variant("ours bf16", "medsegdiff", "bf16"),
    Variant("PyTorch fp32, channels last", "torch", "fp32", channels_last=True),
    Variant("PyTorch bf16, channels last", "torch", "bf16", channels_last=True),
)


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["forward", "step"], choices=["forward", "step"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--widths", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--step-batches", type=int, nargs="+", default=[4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="what all threads together compute, not what passes: for a machine with other work, with --threads 1",
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--versions", nargs="+", default=["new"], choices=["new", "v1", "v2"], help="of the network")
    parser.add_argument("--one-layout", action="store_true", help="PyTorch in its usual layout only")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # both sides read it when they start
    variants = [
        dataclasses.replace(variant, name=f"{variant.name}, {version}", version=version)
        if len(options.versions) > 1
        else dataclasses.replace(variant, version=version)
        for version in options.versions
        for variant in VARIANTS
        if variant.precision in options.precisions and not (options.one_layout and variant.channels_last)
    ]
    works = [
        Work(task, size, batch, width)
        for task in options.tasks
        for width in options.widths
        for size in options.sizes
        for batch in (options.batches if task == "forward" else options.step_batches)
    ]
    results = []
    for work in works:
        result = {"work": dataclasses.asdict(work), "seconds": measure(variants, work, options)}
        if not options.no_memory:
            result["peak"] = {variant.name: peak(variant, work, options.threads) for variant in variants}
        results.append(result)
        print(table(result, variants), flush=True)
        if options.out:
            clock = "processor" if options.processor_time else "wall"
            content = {
                "machine": machine(options.threads),
                "clock": clock,
                "rounds": options.rounds,
                "results": results,
            }
            options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(variants: list[Variant], work: Work, options: argparse.Namespace) -> dict[str, list[float]]:
    """The seconds of each variant in each round."""
    clock = time.process_time if options.processor_time else time.perf_counter
    frameworks = {variant.framework for variant in variants}
    workers = {name: Worker(name, options.threads, clock=clock) for name in frameworks}
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    try:
        for turn in range(WARM_UP + options.rounds):
            for variant in variants:
                elapsed = workers[variant.framework].seconds(variant, work)
                print(f"{work.task} x{work.batch}, turn {turn}: {variant.name} {elapsed:.3f} s", file=sys.stderr)
                if turn >= WARM_UP:
                    seconds[variant.name].append(elapsed)
    finally:
        for worker in workers.values():
            worker.close()
    return seconds


def peak(variant: Variant, work: Work, threads: int) -> int:
    """Bytes that a process needs for one variant's work, the framework included."""
    worker = Worker(variant.framework, threads)
    try:
        for _ in range(WARM_UP):
            worker.seconds(variant, work)
        return worker.peak()
    finally:
        worker.close()


def table(result: dict[str, Any], variants: list[Variant]) -> str:
    """Medians, their range, ratios to PyTorch's faster layout of the same precision and version, and peaks."""
    work, seconds, peaks = result["work"], result["seconds"], result.get("peak", {})
    medians = {name: float(np.median(times)) for name, times in seconds.items()}

    def reference(figures: dict[str, float], variant: Variant) -> float:
        alike = dataclasses.replace(variant, name="", framework="torch", channels_last=False)
        return min(figures[v.name] for v in variants if dataclasses.replace(v, name="", channels_last=False) == alike)

    lines = [
        f"{work['task']}, {work['size']} x {work['size']}, width {work['width']}, batch {work['batch']}",
        "",
        "| variant | median ms | range | x PyTorch | peak MiB | x PyTorch |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant in variants:
        times = seconds[variant.name]
        ratio = medians[variant.name] / reference(medians, variant)
        cells = [f"{1e3 * medians[variant.name]:.0f}", f"{1e3 * min(times):.0f} to {1e3 * max(times):.0f}"]
        cells.append(f"{ratio:.2f}")
        if peaks:
            share = peaks[variant.name] / reference(peaks, variant)
            cells += [f"{peaks[variant.name] / 2**20:.0f}", f"{share:.2f}"]
        else:
            cells += ["", ""]
        lines.append(f"| {variant.name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def machine(threads: int) -> dict[str, Any]:
    """What is saved with the numbers: the processor, the threads, Python's version."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": names[0] if names else platform.processor(), "threads": threads, "python": platform.python_version()}


if __name__ == "__main__":
    main()
