"""What each part of version v2 is worth: the same short training of each configuration, on real images.

    python -m benchmarks.ablation_v2 isic|hippocampus --data-dir DIR [--only nbp sine] [--seeds 0 1] [--steps 600]
        [--out-dir FOLDER]

Every configuration is trained as the recipe `isic` says, or `benchmarks/hippocampus.yaml`, but shortly, in bf16 and
with a shorter average, from the same seeds on the same batches, and segments the test images with default ensembles.
Prints mean Dice and IoU over all seeds, and the paired difference to version new in Dice, with 95 % intervals over
images or volumes; and writes each one's scores and the table. The same command goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablation import Study

SHORT = {"ema_rate": "0.99", "warmup_steps": 60, "precision": "bf16"}
V2 = {"version": "v2"}
ROWS = {
    "new": {},
    "anchor": {**V2, "ssformer": "none"},
    "cross": {**V2, "ssformer": "cross"},
    "nbp": V2,
    "sine": {**V2, "spectrum": "sine"},
    "mask-alone": {**V2, "image_input": False},
    "mse": {**V2, "anchor_loss": "mse"},
}
STUDIES = {
    "isic": Study("isic", ROWS, steps=600, common=SHORT),
    "hippocampus": Study(str(Path(__file__).with_name("hippocampus.yaml")), ROWS, steps=600, common=SHORT),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is not scored yet, and print the table."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in STUDIES:
        sys.exit(f"which dataset: {' or '.join(STUDIES)}, before all options")
    STUDIES[given[0]].main(__doc__, Path("results/ablation-v2") / given[0], given[1:])


if __name__ == "__main__":
    main()
