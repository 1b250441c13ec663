"""What each part of version v2 is worth: the same short training of each configuration, on real images.

    python -m benchmarks.ablation_v2 --data-dir DIR [--only nbp sine] [--seeds 0 1] [--steps 1200] [--out-dir FOLDER]

Every configuration is trained as `isic-small` is, from the same seeds on the same batches, and segments the test images
with the default ensembles. Prints mean Dice and IoU over all seeds, and the paired difference to version new in Dice,
with 95 % intervals over images; and writes each image's scores and the table. The same command goes on where it was
stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablation import Study

V2 = {"version": "v2"}
STUDY = Study(
    "isic-small",
    {
        "new": {},
        "anchor": {**V2, "ssformer": "none"},
        "cross": {**V2, "ssformer": "cross"},
        "nbp": V2,
        "sine": {**V2, "spectrum": "sine"},
        "mask-alone": {**V2, "image_input": False},
        "mse": {**V2, "anchor_loss": "mse"},
    },
    steps=1200,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is not scored yet, and print the table."""
    STUDY.main(__doc__, Path("results/ablation-v2"), argv)


if __name__ == "__main__":
    main()
