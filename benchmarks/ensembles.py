"""What ensembles are worth by sampler and steps: accuracy, calibration, and whether their agreement shows failures.

    python -m benchmarks.ensembles --model-path RUN --data-dir DIR [--images 100] [--members 5] [--seed 0]
    python -m benchmarks.ensembles --model-path RUN --data-dir DIR --members 3..25 --until 0.05
    python -m benchmarks.ensembles --model-path isic --data-dir DIR --held-out --candidates ddpm:3 ddpm:3:tta

Dice at the images' own resolution; the rest at the network's. Prints a table in Markdown and appends it to a CSV file,
with the model, images, seed and members; what that file already holds is not computed again. GED falls with the
number of members: compare it between ensembles of equally many only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import Records
from benchmarks.trained import Trained
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.masks import uncertainty
from medsegdiff.masks.decision import THRESHOLD

CANDIDATES = ("dpm++:1", "ddim:2", "ddim:3", "ddpm:3", "ddpm:5", "ddpm:10")
SETTING = ("model", "images", "seed", "members", "until", "way")
COLUMNS = {
    "dice": "Dice, ensemble",
    "member": "Dice, one member",
    "agreement": "agreement",
    "ged": "GED",
    "ece": "calibration error",
    "area": "error retention, area",
    "rank": "rank correlation",
    "used": "members used",
    "seconds": "seconds an image",
}


def measure(trained: Trained, sampling: SamplingConfig) -> dict[str, float]:
    """The columns of the table for one sampler and number of steps."""
    begun = time.perf_counter()
    results = {result.id: result for result in trained.segment(sampling, trained.dataset.ids)}
    seconds = (time.perf_counter() - begun) / len(results)
    dice, member, ged, histograms, agreement = [], [], [], [], []
    for index, name in enumerate(trained.dataset.ids):
        result, truth = results[name], trained.dataset.mask(index)[0] > THRESHOLD
        dice.append(trained.dice(name, result.probability))
        member.append(np.mean([trained.dice(name, one) for one in result.members]))
        ged.append(uncertainty.generalised_energy_distance(result.members[:, 0] > THRESHOLD, truth))
        histograms.append(uncertainty.calibration_histogram(result.probability[0], truth))
        agreement.append(result.agreement)
    return {
        "dice": 100 * np.mean(dice),
        "member": 100 * np.mean(member),
        "agreement": np.mean(agreement),
        "ged": np.mean(ged),
        "ece": uncertainty.expected_calibration_error(histograms),
        "area": uncertainty.error_retention(1 - np.array(dice), agreement).area,
        "rank": uncertainty.rank_correlation(agreement, dice),
        "used": np.mean([result.count for result in results.values()]),
        "seconds": seconds,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--members", default="5", help="two or more, or a range, as 3..25: until the mask has settled")
    parser.add_argument("--until", type=float, default=SamplingConfig.until, help="when a mask has settled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--candidates",
        nargs="+",
        default=list(CANDIDATES),
        help="as sampler:steps, sampler:steps:control or sampler:steps:tta",
    )
    parser.add_argument("--held-out", action="store_true", help="images that training held out, not the test set's")
    parser.add_argument("--out", type=Path, default=Path("docs/sampling/ensembles.csv"))
    options = parser.parse_args(argv)
    records = Records(options.out, (*SETTING, *COLUMNS))
    trained = Trained(options.model_path, options.data_dir, options.images, options.held_out)
    rows = []
    for candidate in tqdm(options.candidates, unit="setting"):
        sampler, steps, *more = candidate.split(":")
        sampling = SamplingConfig(
            sampler=sampler,
            steps=int(steps),
            members=options.members,
            until=options.until,
            batch_size=20,
            tta=more == ["tta"],
            control="" if more == ["tta"] else "".join(more),
            seed=options.seed,
        )
        least, most = sampling.member_range
        if least < 2:
            parser.error(f"--members {options.members}: agreement needs at least two")
        # How far an ensemble of fixed size has settled is not asked.
        until = sampling.until if most > least else ""
        given = (trained.model, len(trained.dataset), options.seed, options.members, until, candidate)
        setting = dict(zip(SETTING, given))
        if not records.find(**setting):
            measured = measure(trained, sampling)
            records.add(**setting, **{key: f"{value:.5f}" for key, value in measured.items()})
        rows += records.find(**setting)
    print(table(rows))


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of the file in Markdown."""
    lines = [f"| sampler and steps | {' | '.join(COLUMNS.values())} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for row in rows:
        cells = (f"{float(row[key]):.{1 if key in ('dice', 'member', 'used') else 3}f}" for key in COLUMNS)
        lines.append(f"| {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
