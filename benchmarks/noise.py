"""Do masks come from the image or from the noise? The same images with another seed's noise, and another image's.

    python -m benchmarks.noise --model-path RUN --data-dir DIR [--images 100] [--members 5]

For each image the mean Dice of two of its masks, at the network's resolution: both of one ensemble; one drawn with
each of two seeds; one drawn with the image's own noise and one with another image's. Noise that carries nothing of an
image makes all three alike. Appends them to a CSV file; what that already holds is not computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.records import Records
from benchmarks.trained import Trained
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.statistics import summarise
from medsegdiff.masks.uncertainty import pairwise_dice

SETTING = ("model", "members", "images", "sampler", "steps")
PAIRS = {
    "ensemble": "of one ensemble",
    "seeds": "of two seeds",
    "shuffled": "with its own and another image's noise",
}


def dice_across(first: np.ndarray, second: np.ndarray) -> float:
    """Mean Dice of all pairs of a mask of `first` and one of `second`, bool (K, H, W) each."""
    return float(np.mean([overlap(a, b).dice for a in first for b in second]))


def main(argv: Sequence[str] | None = None) -> None:
    """Sample the three ensembles of each image and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--sampler", default=SamplingConfig.sampler)
    parser.add_argument("--steps", type=int, help="by default those of sample")
    parser.add_argument("--out", type=Path, default=Path("docs/sampling/noise.csv"))
    options = parser.parse_args(argv)
    if options.members < 2:
        parser.error(f"--members {options.members}: pairs need at least two")
    records = Records(options.out, (*SETTING, "id", *PAIRS))
    trained = Trained(options.model_path, options.data_dir, options.images)
    sampling = SamplingConfig(options.sampler, options.steps, members=options.members, batch_size=20)
    sampling = sampling.resolved(trained.weights.config.diffusion)
    given = (trained.model, options.members, len(trained.dataset), sampling.sampler, sampling.steps)
    setting = dict(zip(SETTING, given))
    if len(records.find(**setting)) < len(trained.dataset):
        own, seeds, shuffled = (
            _masks(trained, dataclasses.replace(sampling, **change))
            for change in ({}, {"seed": sampling.seed + 1}, {"control": "shuffle-noise"})
        )
        for name, masks in own.items():
            if records.find(**setting, id=name):
                continue
            dice = pairwise_dice(masks), dice_across(masks, seeds[name]), dice_across(masks, shuffled[name])
            records.add(**setting, id=name, **{key: f"{value:.5f}" for key, value in zip(PAIRS, dice)})
    print(table(records.find(**setting)))


def _masks(trained: Trained, sampling: SamplingConfig) -> dict[str, np.ndarray]:
    results = trained.segment(sampling, trained.dataset.ids)
    return {result.id: result.members[:, 0] > THRESHOLD for result in results}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over images in Markdown, with the difference to two seeds image by image and its 95 % interval."""
    dice = {key: np.array([float(row[key]) for row in rows]) for key in PAIRS}
    lines = ["| two masks of an image | mean Dice | difference to two seeds |", "| --- | ---: | --- |"]
    for key, words in PAIRS.items():
        difference = summarise(dice[key] - dice["seeds"])
        cell = f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})" if key != "seeds" else ""
        lines.append(f"| {words} | {dice[key].mean():.4f} | {cell} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
