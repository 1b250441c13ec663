"""Seconds from an empty cache to the first mask, by phase, and the overhead of a command.

    python -m benchmarks.cold --model-path RUN --images FILE [--rounds 3] [--steps 10] [--out cold.json]

Each round has a new home folder, in which Jittor finds nothing compiled. `medsegdiff sample` is run there as a user
would, thrice with the same options; it writes into run.json how long it took from the first network evaluation on.

* computing: those seconds of the last run
* kernels: how much longer they were in the first run
* core: how much longer than in the last run everything before them was in the first
* start: everything before and after them in the last run: Python, imports, weights, images

Use an otherwise idle machine. Settings of Jittor's in the environment, as cc_flags, hold for these runs too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional


def sample(home: Path, arguments: Sequence[str]) -> tuple[float, float]:
    """Run `medsegdiff sample` at `home`: (seconds of the process, seconds since its first evaluation)."""
    environment = {name: value for name, value in os.environ.items() if name not in ("JITTOR_HOME", "XDG_CACHE_HOME")}
    masks = tempfile.mkdtemp(dir=home)  # what is done already would not be sampled again
    command = [sys.executable, "-m", "medsegdiff", "sample", *arguments, "--out-dir", masks]
    begun = time.perf_counter()
    done = subprocess.run(
        command, env={**environment, "HOME": str(home)}, stderr=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: failed: {done.stderr}")
    return seconds, json.loads((Path(masks) / "run.json").read_text())["seconds"]


def phases(cold: tuple[float, float], warm: tuple[float, float]) -> dict[str, float]:
    """The phases of a first run, from (seconds of the process, seconds since its first evaluation) of it and another.

    They add up to the first run's seconds.
    """
    start, computing = warm[0] - warm[1], warm[1]
    return {
        "core": cold[0] - cold[1] - start,
        "kernels": cold[1] - computing,
        "computing": computing,
        "start": start,
    }


def one_round(arguments: Sequence[str]) -> dict[str, float]:
    """The phases measured in a new home folder."""
    with tempfile.TemporaryDirectory(prefix="cold-") as folder:
        cold, _, warm = (sample(Path(folder), arguments) for _ in range(3))
    return {**phases(cold, warm), "first mask": cold[0], "again": warm[0]}


def table(rounds: Sequence[dict[str, float]]) -> str:
    """The rounds as Markdown, seconds: median, minimum and maximum."""
    lines = ["| phase | median | least | most |", "| --- | ---: | ---: | ---: |"]
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        lines.append(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    return "\n".join(lines)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="a run's folder or a checkpoint")
    parser.add_argument("--images", nargs="+", required=True, help="image files")
    parser.add_argument("--rounds", type=int, default=3, help="how many empty homes")
    parser.add_argument("--out", type=Path, help="where the numbers are written, as JSON")
    options, others = parser.parse_known_args(argv)
    arguments = ["--model-path", options.model_path, "--images", *options.images, *others]
    rounds = [one_round(arguments) for _ in range(options.rounds)]
    print(table(rounds))
    if options.out:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        options.out.write_text(json.dumps({"arguments": arguments, "machine": machine, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
