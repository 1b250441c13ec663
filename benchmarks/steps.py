"""Dice against the number of network evaluations, for every sampler, on real test images.

    python -m benchmarks.steps --model-path RUN --data-dir DIR [--images 100] [--out-dir docs/sampling]

Writes `steps.csv` (the Dice of every image, with the model, members and number of images it belongs to), `steps.png`
and prints the table in Markdown. What `steps.csv` already holds of this model is not computed again, so an
interrupted run is continued; what it holds of others stays, and is not shown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import Dice, Scores, Setting
from benchmarks.trained import Trained
from medsegdiff.config.sampling import SAMPLERS, SamplingConfig
from medsegdiff.masks.statistics import summarise

STEPS = (1, 2, 3, 5, 8, 10, 20, 25, 50, 100)
REFERENCE = ("ddpm", 100)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, then draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--members", type=int, default=1, help="masks averaged for each image")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--out-dir", type=Path, default=Path("docs/sampling"))
    options = parser.parse_args(argv)
    scores = Scores(options.out_dir / "steps.csv")
    trained = Trained(options.model_path, options.data_dir, options.images)
    setting = Setting(trained.model, options.members, len(trained.dataset))
    wanted = [(sampler, steps) for steps in options.steps for sampler in options.samplers]
    there = scores.read(setting)
    for sampler, steps in tqdm([way for way in wanted if way not in there], unit="run"):
        sampling = SamplingConfig(sampler=sampler, steps=steps, members=options.members, batch_size=options.batch_size)
        begun = time.perf_counter()
        dice = scores.complete(trained, sampling)
        seconds = time.perf_counter() - begun
        tqdm.write(f"{sampler:10} {steps:4} evaluations: Dice {np.mean(list(dice.values())):.4f}, {seconds:.0f} s")
    dice = scores.read(setting)
    draw(options.out_dir / "steps.png", dice)
    print(table(dice))


def table(scores: Dice) -> str:
    """Mean Dice in points, and below it the difference to the reference with its 95 % interval."""
    samplers = [sampler for sampler in SAMPLERS if any(way[0] == sampler for way in scores)]
    reference = scores.get(REFERENCE)
    lines = [f"| evaluations | {' | '.join(samplers)} |", "| ---: |" + " --- |" * len(samplers)]
    for steps in sorted({way[1] for way in scores}):
        cells = []
        for sampler in samplers:
            dice = scores.get((sampler, steps))
            cells.append("" if dice is None else _cell(dice, reference))
        lines.append(f"| {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(dice: dict[str, float], reference: dict[str, float] | None) -> str:
    mean = f"{100 * np.mean(list(dice.values())):.1f}"
    if reference is None or dice is reference:
        return mean
    difference = summarise([100 * (dice[name] - reference[name]) for name in reference])
    return f"{mean} ({difference.mean:+.1f}; {difference.low:+.1f} to {difference.high:+.1f})"


def draw(path: Path, scores: Dice) -> None:
    """Dice over evaluations, a line for each sampler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for sampler, marker in zip(SAMPLERS, "os^D"):
        points = sorted(
            (steps, 100 * np.mean(list(dice.values()))) for (s, steps), dice in scores.items() if s == sampler
        )
        if points:
            axes.plot(*zip(*points), marker=marker, markersize=4, label=sampler)
    if REFERENCE in scores:
        level = 100 * np.mean(list(scores[REFERENCE].values()))
        axes.axhspan(level - 0.3, level + 0.3, color="0.88", zorder=0, label="100-step ddpm, 0.3 points about it")
    axes.set(xscale="log", xlabel="network evaluations for a mask", ylabel="mean Dice, points")
    axes.set_xticks(STEPS, [str(step) for step in STEPS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
