"""How a lower precision changes the masks and their Dice, on real test images.

    python -m benchmarks.precision --model-path RUN --data-dir DIR [--images 100]

The same images and noise in float32 and in each of the others that this machine offers; the default ensembles. Prints
the Dice, its paired difference to float32 with a 95 % interval, and the Dice of the two masks with each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.trained import Trained
from medsegdiff.config.choices import PRECISIONS
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.kernels.precision import unavailable
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.statistics import summarise


def main() -> None:
    """Segment in every precision, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    trained = Trained(options.model_path, options.data_dir, options.images)
    print("| precision | Dice | difference to fp32, points | 95 % interval | Dice with fp32's masks, least and mean |")
    print("| --- | ---: | ---: | --- | --- |")
    masks: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    for precision in PRECISIONS:
        reason = unavailable(precision)
        if reason:
            print(f"| {precision} | not measured: {reason} | | | |")
            continue
        found = {
            result.id: result for result in trained.segment(SamplingConfig(precision=precision), trained.dataset.ids)
        }
        results = [found[name] for name in trained.dataset.ids]
        masks[precision] = np.stack([result.probability[0] > THRESHOLD for result in results])
        scores[precision] = np.array([100 * trained.dice(result.id, result.probability) for result in results])
        moved = summarise(scores[precision] - scores["fp32"])
        alike = [overlap(ours, theirs).dice for ours, theirs in zip(masks[precision], masks["fp32"])]
        interval = f"{moved.low:+.3f} to {moved.high:+.3f}"
        cells = [precision, f"{scores[precision].mean():.2f}", f"{moved.mean:+.3f}", interval]
        print("|", " | ".join([*cells, f"{min(alike):.4f}, {np.mean(alike):.4f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
