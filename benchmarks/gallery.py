"""The best, middle and worst cases of scored predictions, beside their ground truth.

    python -m benchmarks.gallery --data-dir DIR --pred-path predictions --out cases.jpg [--each 4]

`evaluate` must have scored the predictions into `--pred-path`; rows go from the best Dice to the worst.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsegdiff.data.layouts.isic import find
from medsegdiff.io.masks import read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import read_probability
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.plots.overview import Row, overview
from medsegdiff.web.cases import choose


def main(argv: Sequence[str] | None = None) -> None:
    """Choose the cases and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pred-path", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=4, help="how many best, middle and worst ones")
    options = parser.parse_args(argv)
    with (options.pred_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        dice = {row["id"]: {"dice": float(row["dice"])} for row in csv.DictReader(file)}
    cases = {case.id: case for case in find(options.data_dir, "test")}
    rows = []
    for _, id in choose(dice, options.each):
        members = [read_probability(path) for path in sorted(options.pred_path.glob(f"{id}_member*.png"))]
        rows.append(
            Row(
                id,
                read_image(cases[id].image),
                read_probability(options.pred_path / f"{id}_prob.png"),
                read_mask(cases[id].mask) > THRESHOLD,
                members,
                np.std(members, axis=0) if members else None,
                dice[id]["dice"],
            )
        )
    overview(rows, options.out)


if __name__ == "__main__":
    main()
