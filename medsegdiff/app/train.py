"""`medsegdiff train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medsegdiff.app.options import Parser, add_section, output_folder
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig, ValidationConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.kernels.precision import check
from medsegdiff.training.run_folder import own
from medsegdiff.training.shares import check_shares

SUMMARY = "train, checkpoint, resume (the same command again continues)"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", action="config", help="YAML file of options; the command line overrides it")
    add_section(parser, DataConfig, "data")
    add_section(parser, TrainingConfig, "training")
    add_section(parser, ValidationConfig, "validation")
    add_section(parser, NetworkConfig, "network")
    add_section(parser, DiffusionConfig, "diffusion")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what training takes, from a few steps on noise; write nothing"
    )


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    config = RunConfig.from_flat({name: value for name, value in vars(options).items() if value is not None})
    return train(config, options.dry_run)


def train(config: RunConfig, dry: bool = False) -> int:
    """Find and prepare the data, then train; or, if `dry`, say what that takes."""
    check_shares(config)
    if not config.data.data_dir:
        raise InputError("--data-dir: missing; give the dataset's folder")
    out = output_folder(config.training.out_dir)
    for option, value, has in (
        ("image-channels", config.network.image_channels, 3),
        ("class-cond", config.network.class_cond, False),
    ):
        if value != has:
            raise InputError(f"--{option} {value}: ISIC has colour images and no class labels; use {has}")
    from medsegdiff.data.cache import prepare
    from medsegdiff.data.layouts.isic import find_cases
    from medsegdiff.data.splits import count_held_out, hold_out

    cases = find_cases(Path(config.data.data_dir), "train")
    check(config.training.precision)
    validation = config.validation
    for size in config.network.unmet_attention:
        print(f"note: --attention-resolutions {size}: no level of this network has maps of that size")
    if ranks.count() > 1 and "OMPI_MCA_odls_base_sigkill_timeout" not in os.environ:
        print("note: to stop and save, send SIGUSR1 to mpirun: Ctrl-C and SIGTERM leave it a second (docs/cluster.md)")
    if dry:
        held = count_held_out(len(cases), validation.val_fraction) if validation.val_interval else 0
        return _dry_run(config, len(cases) - held)
    if ranks.rank() == 0:
        own(out)  # complains of what would be lost, before anything takes long
    cache = Path(config.data.cache_dir) if config.data.cache_dir else None
    network = config.network
    kind = {"mask_resize": config.data.mask_resize, "num_classes": network.num_classes}
    dataset = prepare(cases, network.image_size, cache, **kind, check_later=True)
    held_out = None
    if validation.val_interval:
        dataset, held_out = hold_out(dataset, validation.val_fraction, validation.val_images)

    from medsegdiff.training.interruption import Interrupted
    from medsegdiff.training.loop import train as run_training

    try:
        last = run_training(config, dataset, held_out)
    except Interrupted as stop:
        print(f"stopped by {stop}; the same command continues")
        return stop.exit_code
    print(f"trained {int(last.name[5:])} steps; the checkpoint is {last}")
    return 0


def _dry_run(config: RunConfig, images: int) -> int:
    from medsegdiff.training.dry_run import dry_run

    for what, how_much in dry_run(config, images):
        print(f"{what:16}{how_much}", flush=True)
    return 0
