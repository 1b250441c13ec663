"""The images of a training: found, prepared, and some held out."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.config.run import RunConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.layouts import isic
from medsegdiff.data.loader import Dataset
from medsegdiff.data.splits import hold_out
from medsegdiff.training.run_folder import own


def find_images(config: RunConfig) -> list[Case]:
    """The training images of `config.data.data_dir`, with their masks.

    Raises:
        InputError: no folder is named, it is no dataset, or the network is for other images.
    """
    if not config.data.data_dir:
        raise InputError("--data-dir: missing; give the dataset's folder")
    for option, value, has in (
        ("image-channels", config.network.image_channels, 3),
        ("class-cond", config.network.class_cond, False),
    ):
        if value != has:
            raise InputError(f"--{option} {value}: ISIC has colour images and no class labels; use {has}")
    return isic.find(Path(config.data.data_dir), "train")


def open_images(config: RunConfig, cases: list[Case]) -> tuple[Dataset, Optional[Dataset]]:
    """`cases` at the network's size: those to train on and, where the configuration validates, those held out.

    Raises:
        InputError: a file cannot be read, or too few images are left to train on, or `config.training.out_dir` holds
            what is not training's own.
    """
    if ranks.rank() == 0:
        own(Path(config.training.out_dir))  # complains of what would be lost, before anything takes long
    cache = Path(config.data.cache_dir) if config.data.cache_dir else None
    network, validation = config.network, config.validation
    kind = {"mask_resize": config.data.mask_resize, "num_classes": network.num_classes}
    dataset = prepare(cases, network.image_size, cache, **kind, check_later=True)
    if not validation.val_interval:
        return dataset, None
    return hold_out(dataset, validation.val_fraction, validation.val_images)
