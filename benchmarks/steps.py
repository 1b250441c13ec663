"""Dice against the number of network evaluations, for every sampler, on real test images.

    python -m benchmarks.steps --model-path RUN --data-dir DIR [--images 100] [--out-dir docs/sampling]

Writes `steps.csv` (the Dice of every image), `steps.png` and prints the table in Markdown. What `steps.csv`
already holds is not computed again, so an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.trained import Trained
from medsegdiff.engine.config import SAMPLERS, SamplingConfig
from medsegdiff.masks.statistics import summarise

STEPS = (1, 2, 3, 5, 8, 10, 20, 25, 50, 100)
REFERENCE = ("ddpm", 100)
COLUMNS = ("sampler", "steps", "id", "dice")

Scores = dict[tuple[str, int], dict[str, float]]


def main() -> None:
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
    options = parser.parse_args()
    options.out_dir.mkdir(parents=True, exist_ok=True)
    path = options.out_dir / "steps.csv"
    scores = read(path)
    wanted = [(sampler, steps) for steps in options.steps for sampler in options.samplers]
    missing = [key for key in wanted if key not in scores]
    trained = Trained(options.model_path, options.data_dir, options.images) if missing else None
    for sampler, steps in tqdm(missing, unit="run"):
        sampling = SamplingConfig(sampler=sampler, steps=steps, members=options.members, batch_size=options.batch_size)
        begun = time.perf_counter()
        results = trained.segment(sampling)
        scores[sampler, steps] = {result.id: trained.dice(result.id, result.probability) for result in results}
        seconds = time.perf_counter() - begun
        write(path, scores)
        mean = np.mean(list(scores[sampler, steps].values()))
        tqdm.write(f"{sampler:10} {steps:4} evaluations: Dice {mean:.4f}, {seconds:.0f} s")
    draw(options.out_dir / "steps.png", scores)
    print(table(scores))


def read(path: Path) -> Scores:
    """The scores that were written before."""
    scores: Scores = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                scores.setdefault((row["sampler"], int(row["steps"])), {})[row["id"]] = float(row["dice"])
    return scores


def write(path: Path, scores: Scores) -> None:
    """Write them all."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for (sampler, steps), dice in sorted(scores.items()):
            rows.writerows((sampler, steps, name, f"{value:.5f}") for name, value in dice.items())


def table(scores: Scores) -> str:
    """Mean Dice in points, and below it the difference to the reference with its 95 % interval."""
    samplers = [sampler for sampler in SAMPLERS if any(key[0] == sampler for key in scores)]
    reference = scores.get(REFERENCE)
    lines = [f"| evaluations | {' | '.join(samplers)} |", "| ---: |" + " --- |" * len(samplers)]
    for steps in sorted({key[1] for key in scores}):
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


def draw(path: Path, scores: Scores) -> None:
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
