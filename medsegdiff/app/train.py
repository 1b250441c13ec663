"""`medsegdiff train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.app.options import Parser, add_section
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.engine.config import DataConfig, RunConfig, TrainingConfig
from medsegdiff.nn.config import NetworkConfig
from medsegdiff.runtime.errors import InputError

SUMMARY = "train, checkpoint, resume (the same command again continues)"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", action="config", help="YAML file of options; the command line overrides it")
    add_section(parser, DataConfig, "data")
    add_section(parser, TrainingConfig, "training")
    add_section(parser, NetworkConfig, "network")
    add_section(parser, DiffusionConfig, "diffusion")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    return train(RunConfig.from_flat({name: value for name, value in vars(options).items() if value is not None}))


def train(config: RunConfig) -> int:
    """Find and prepare the data, then train."""
    if not config.data.data_dir:
        raise InputError("--data-dir: missing; give the dataset's folder")
    for option, value, has in (
        ("image-channels", config.network.image_channels, 3),
        ("class-cond", config.network.class_cond, False),
    ):
        if value != has:
            raise InputError(f"--{option} {value}: ISIC has colour images and no class labels; use {has}")
    from medsegdiff.data.cache import prepare
    from medsegdiff.data.isic import find_cases

    cases = find_cases(Path(config.data.data_dir), "train")
    cache = Path(config.data.cache_dir) if config.data.cache_dir else None
    network = config.network
    dataset = prepare(cases, network.image_size, cache, config.data.mask_resize, num_classes=network.num_classes)
    for size in network.unmet_attention:
        print(f"note: --attention-resolutions {size}: no level of this network has maps of that size")

    from medsegdiff.engine.training import Interrupted
    from medsegdiff.engine.training import train as run_training

    try:
        last = run_training(config, dataset)
    except Interrupted as stop:
        print(f"stopped by {stop}; the same command continues")
        return stop.exit_code
    print(f"trained {config.training.steps} steps; the checkpoint is {last}")
    return 0
