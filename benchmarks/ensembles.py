"""What ensembles are worth by sampler and steps: accuracy, calibration, and whether they know when they fail.

    python -m benchmarks.ensembles --model-path RUN --data-dir DIR [--images 100] [--members 5]

Dice at the images' own resolution; the rest at the network's. Prints a table in Markdown and writes it as CSV.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.trained import Trained
from medsegdiff.engine.config import SamplingConfig
from medsegdiff.masks import uncertainty
from medsegdiff.masks.decision import THRESHOLD

CANDIDATES = ("dpm++:1", "ddim:2", "ddim:3", "ddpm:3", "ddpm:5", "ddpm:10")
COLUMNS = {
    "dice": "Dice, ensemble",
    "member": "Dice, one member",
    "agreement": "agreement",
    "ged": "GED",
    "ece": "calibration error",
    "area": "error retention, area",
    "rank": "rank correlation",
    "seconds": "seconds an image",
}


def measure(trained: Trained, sampling: SamplingConfig) -> dict[str, float]:
    """The columns of the table for one way of sampling."""
    begun = time.perf_counter()
    results = trained.segment(sampling)
    seconds = (time.perf_counter() - begun) / len(results)
    dice, member, ged, histograms = [], [], [], []
    for index, result in enumerate(results):
        truth = trained.dataset.mask(index)[0] > THRESHOLD
        dice.append(trained.dice(result.id, result.probability))
        member.append(np.mean([trained.dice(result.id, one) for one in result.members]))
        ged.append(uncertainty.generalised_energy_distance(result.members[:, 0] > THRESHOLD, truth))
        histograms.append(uncertainty.calibration_histogram(result.probability[0], truth))
    agreement = [result.agreement for result in results]
    return {
        "dice": 100 * np.mean(dice),
        "member": 100 * np.mean(member),
        "agreement": np.mean(agreement),
        "ged": np.mean(ged),
        "ece": uncertainty.expected_calibration_error(histograms),
        "area": uncertainty.error_retention(1 - np.array(dice), agreement).area,
        "rank": uncertainty.rank_correlation(agreement, dice),
        "seconds": seconds,
    }


def main() -> None:
    """Measure every candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument(
        "--candidates", nargs="+", default=list(CANDIDATES), help="as sampler:steps or sampler:steps:control"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/sampling/ensembles.csv"))
    options = parser.parse_args()
    trained = Trained(options.model_path, options.data_dir, options.images)
    rows = {}
    for candidate in tqdm(options.candidates, unit="way"):
        sampler, steps, *control = candidate.split(":")
        sampling = SamplingConfig(
            sampler=sampler, steps=int(steps), members=options.members, batch_size=20, control="".join(control)
        )
        rows[candidate] = measure(trained, sampling)
        tqdm.write(f"{candidate} {rows[candidate]}")
        with options.out.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("way", *COLUMNS))
            table.writerows((name, *(f"{row[key]:.5f}" for key in COLUMNS)) for name, row in rows.items())
    print(f"| way | {' | '.join(COLUMNS.values())} |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for name, row in rows.items():
        cells = (f"{row[key]:.1f}" if key in ("dice", "member") else f"{row[key]:.3f}" for key in COLUMNS)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
