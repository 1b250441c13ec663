"""What each choice at sampling is worth, measured on images held out from training, never on test images.

    python -m benchmarks.sampling_choices --data-dir DIR [--model-path isic] [--seeds 0 1 2] [--only ...] [--out FILE]

One network samples the same images in every way: Dice at the images' own resolution, the mean over seeds, and the
paired difference to the defaults, with 95 % intervals over images. The file has the Dice of each image by seed; what it
holds is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.ablation import interval
from benchmarks.records import Records
from benchmarks.trained import Trained
from medsegdiff.config.sampling import SamplingConfig

ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "1-member": {"members": 1},
    "8-members": {"members": 8},
    "8-members-tta": {"members": 8, "tta": True},
    "25-members": {"members": 25},
    "postprocess": {"postprocess": True},
    "vote": {"fusion": "vote"},
    "staple": {"fusion": "staple"},
    "published-fusion": {"fusion": "published"},
    "blend": {"blend": True},
    "ddpm-2": {"steps": 2},
    "ddpm-10": {"steps": 10},
    "ddim-3": {"sampler": "ddim", "steps": 3},
    "dpm++-1": {"sampler": "dpm++", "steps": 1},
}
COLUMNS = ("model", "row", "seed", "id", "dice")


def main(argv: Sequence[str] | None = None) -> None:
    """Segment in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model-path", type=Path, default=Path("isic"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--images", type=int, default=1000, help="at most")
    parser.add_argument("--out", type=Path, default=Path("results/sampling-choices.csv"))
    options = parser.parse_args(argv)
    trained = Trained(options.model_path, options.data_dir, options.images, held_out=True)
    records, ids = Records(options.out, COLUMNS), trained.dataset.ids
    dice = {}
    for row in tqdm(options.only, unit="row"):
        by_seed = []
        for seed in options.seeds:
            setting = {"model": trained.model, "row": row, "seed": seed}
            if len(records.find(**setting)) < len(ids):
                sampling = SamplingConfig(seed=seed, batch_size=20, **ROWS[row])
                for result in trained.segment(sampling, ids):
                    one = trained.dice(result.id, result.probability, sampling.postprocess)
                    records.add(**setting, id=result.id, dice=f"{100 * one:.4f}")
            found = {line["id"]: float(line["dice"]) for line in records.find(**setting)}
            by_seed.append([found[name] for name in ids])
        dice[row] = np.mean(by_seed, axis=0)
    print(table(dice))


def table(dice: dict[str, np.ndarray]) -> str:
    """Markdown of the Dice (images,) of each row, and of what it is more than the first one's."""
    first, *others = dice
    lines = [
        f"| sampling | Dice | Dice minus {first}'s |",
        "| --- | --- | --- |",
        f"| {first} | {interval(dice[first])} | |",
    ]
    lines += [f"| {name} | {interval(dice[name])} | {interval(dice[name] - dice[first], '+.2f')} |" for name in others]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
