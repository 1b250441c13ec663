"""What each choice of the recipe `isic` is worth, measured on images held out from training, never on test images.

    python -m benchmarks.choices --data-dir DIR [--only recipe noise] [--seeds 0] [--steps 1000] [--out-dir FOLDER]

Every configuration is trained for about the same processor time, from the same seeds, and segments the held-out images
with the default ensembles: mean Dice and IoU over all seeds, and the paired difference to the recipe in Dice, with 95 %
intervals over images. The same command goes on where it was stopped; a few rows at a time with `--only`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablation import Study

# `share` of the steps: what a step costs beside the recipe's, so that all take the same time.
STUDY = Study(
    "isic",
    {
        "recipe": {},
        "noise": {"predict_xstart": False},
        "v": {"predict_xstart": False, "predict_v": True},
        "no-dice-loss": {"dice_weight": 0.0},
        "no-augmentation": {"augment": False, "augment_strength": 0.0, "augment_hair": 0.0, "augment_stickers": 0.0},
        "flips-and-colour-only": {"augment_strength": 0.0, "augment_hair": 0.0, "augment_stickers": 0.0},
        "no-hair-or-stickers": {"augment_hair": 0.0, "augment_stickers": 0.0},
        "half-rate": {"lr": 3.5e-4},
        "double-rate": {"lr": 1.4e-3},
        "linear-decay": {"lr_schedule": "linear"},
        "no-weight-decay": {"weight_decay": 0.0},
        "shorter-average": {"ema_rate": "0.99"},
        "no-average": {"ema_rate": "0"},
        "batch-4": {"batch_size": 4, "share": 1.9},
        "batch-16": {"batch_size": 16, "share": 0.52},
        "cosine-schedule": {"noise_schedule": "cosine"},
        "smaller-mask": {"mask_scale": 0.5},
        "loss-aware-timesteps": {"schedule_sampler": "loss-second-moment"},
        "high-noise-timesteps": {"schedule_sampler": "high-noise"},
        "dropout": {"dropout": 0.1},
        "no-conditioning-dropout": {"cond_dropout": 0.0},
        "width-64": {"num_channels": 64, "share": 0.35},
        "96-pixels": {"image_size": 96, "share": 0.45},
        "128-pixels": {"image_size": 128, "share": 0.25},
    },
    steps=1000,
    held_out=True,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is not scored yet, and print the table."""
    STUDY.main(__doc__, Path("results/choices"), argv)


if __name__ == "__main__":
    main()
