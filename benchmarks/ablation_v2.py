"""What each part of version v2 is worth: the same short training of each configuration, on real images.

    python -m benchmarks.ablation_v2 --data-dir DIR [--only nbp sine] [--seeds 0 1] [--steps 1200] [--out-dir FOLDER]

Every configuration is trained as `isic-small` is, from the same seeds on the same batches, and segments the test images
with the default ensembles. A training that was stopped is continued, and one that is scored is not repeated: the same
command goes on. Prints mean Dice and IoU over all seeds, and the paired difference to version new in Dice, with 95 %
intervals over images; and writes each image's scores and the table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import medsegdiff
from benchmarks.trained import Trained
from medsegdiff.base.files import replacing
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.masks.statistics import summarise

V2 = {"version": "v2"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "new": {},
    "anchor": {**V2, "ssformer": "none"},
    "cross": {**V2, "ssformer": "cross"},
    "nbp": V2,
    "sine": {**V2, "spectrum": "sine"},
    "mask-alone": {**V2, "image_input": False},
    "mse": {**V2, "anchor_loss": "mse"},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is not scored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out-dir", type=Path, default=Path("results/ablation-v2"))
    parser.add_argument("--only", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--images", type=int, default=1000, help="of the test images, at most")
    options = parser.parse_args(argv)
    for seed in options.seeds:  # so that a first table stands after the first seed
        for name in options.only:
            folder = options.out_dir / f"{name}-{seed}"
            if not (folder / "scores.csv").exists():
                score(train(folder, name, seed, options), options, folder / "scores.csv")
            lines = table(options)
            save(options.out_dir / "table.md", lines)
    print(lines)


def train(folder: Path, name: str, seed: int, options: argparse.Namespace) -> Path:
    """Train one configuration, or continue; returns where its checkpoints are."""
    budget = {"steps": options.steps, "lr_anneal_steps": options.steps, "seed": seed}
    where = {"data_dir": str(options.data_dir), "out_dir": str(folder / "run")}
    medsegdiff.train("isic-small", **CONFIGURATIONS[name], **budget, **where)
    return folder / "run"


def score(run: Path, options: argparse.Namespace, path: Path) -> None:
    """Write Dice and IoU of every test image."""
    trained = Trained(run, options.data_dir, options.images)
    found = {
        result.id: trained.dice(result.id, result.probability)
        for result in trained.segment(SamplingConfig(), trained.dataset.ids)
    }
    rows = [f"{name},{dice:.6f},{dice / (2 - dice):.6f}\n" for name, dice in sorted(found.items())]
    save(path, "".join(["id,dice,iou\n", *rows]))


def save(path: Path, text: str) -> None:
    """Write a file, whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, tuple[float, float]]:
    """Dice and IoU, in percent, by image."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: (100 * float(row["dice"]), 100 * float(row["iou"])) for row in csv.DictReader(file)}


def table(options: argparse.Namespace) -> str:
    """Markdown of what is scored so far; the mean over seeds of each image counts once."""
    lines = [
        f"| configuration ({options.steps} steps) | seeds | Dice | IoU | Dice minus new's |",
        "| --- | ---: | --- | --- | --- |",
    ]
    found = {}
    for name in CONFIGURATIONS:
        paths = [options.out_dir / f"{name}-{seed}" / "scores.csv" for seed in options.seeds]
        found[name] = {path.parent.name.rpartition("-")[2]: read(path) for path in paths if path.exists()}
    for name, by_seed in found.items():
        if not by_seed:
            continue
        ids = sorted(next(iter(by_seed.values())))
        scores = np.array([[scores[image] for image in ids] for scores in by_seed.values()]).mean(axis=0)
        cells = [name, str(len(by_seed)), *(interval(scores[:, column]) for column in (0, 1))]
        alike = [seed for seed in by_seed if seed in found["new"]]
        if name != "new" and alike:
            moved = [[by_seed[seed][image][0] - found["new"][seed][image][0] for image in ids] for seed in alike]
            cells.append(interval(np.mean(moved, axis=0), "+.2f"))
        lines.append("| " + " | ".join([*cells, ""][:5]) + " |")
    return "\n".join(lines) + "\n"


def interval(values: np.ndarray, form: str = ".2f") -> str:
    """Mean and 95 % interval."""
    found = summarise(values)
    return f"{found.mean:{form}} ({found.low:{form}} to {found.high:{form}})"


if __name__ == "__main__":
    main()
