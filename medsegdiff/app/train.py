"""`medsegdiff train`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from medsegdiff.app.options import Parser, add_section, output_folder
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError, flag
from medsegdiff.base.screen import tell
from medsegdiff.config.data import DataConfig
from medsegdiff.config.files import names
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig, ValidationConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.kernels.precision import check
from medsegdiff.runtime import requirements
from medsegdiff.training.shares import check_shares

SUMMARY = "train, checkpoint, resume (the same command again continues)"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    ours = ", ".join(names())
    text = f"YAML file of options, or one that comes with the package ({ours}); the command line overrides it"
    parser.add_argument("--config", action="config", help=text)
    add_section(parser, DataConfig, "data")
    add_section(parser, TrainingConfig, "training")
    add_section(parser, ValidationConfig, "validation")
    add_section(parser, NetworkConfig, "network")
    add_section(parser, DiffusionConfig, "diffusion")
    parser.option("--dry-run", False, "measure memory and time of a few steps on noise; write nothing")
    parser.put_first("--config", "--data-dir", "--out-dir", "--steps", "--dry-run")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    config = RunConfig.from_flat({name: value for name, value in vars(options).items() if value is not None})
    return train(config, options.dry_run)


def read_options(config: Union[RunConfig, str, Path], options: Mapping[str, Any]) -> RunConfig:
    """A configuration, a file's or one's own, with `options` in place of its own, checked as the command's are.

    Raises:
        InputError: there is no such file, or an option is unknown or makes no sense.
    """
    options = {name: _plain(value) for name, value in options.items()}
    parser = Parser(prog="medsegdiff train")
    parser.spell = str
    configure(parser)
    if isinstance(config, RunConfig):
        found = parser.parse_object({**config.flat(), **options})
    else:
        base = parser.parse_args(["--config", str(config)])
        parser.given = set(map(flag, options))
        found = parser.parse_object(options, base)
    if found.dry_run:
        raise InputError("`dry_run`: is an option of the command `medsegdiff train` only; leave it out")
    try:
        read = RunConfig.from_flat(vars(found))
    except InputError as error:
        raise parser.explained(error) from None
    output_folder(read.training.out_dir)
    return read


def _plain(value: Any) -> Any:
    """A path as text, and numbers of NumPy's as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def train(config: RunConfig, dry: bool = False) -> int:
    """Find and prepare the data, then train; or, if `dry`, only measure memory and time."""
    check_shares(config)
    output_folder(config.training.out_dir)
    requirements.check()  # before anything takes long
    from medsegdiff.training.images import find_images, open_images

    images = find_images(config)
    config = images.config
    check(config.training.precision)
    for size in config.network.unmet_attention:
        print(f"note: --attention-resolutions {size}: no level of this network has maps of that size")
    if ranks.count() > 1 and "OMPI_MCA_odls_base_sigkill_timeout" not in os.environ:
        print("note: to stop and save, send SIGUSR1 to mpirun: after Ctrl-C it waits one second only (docs/cluster.md)")
    if dry:
        from medsegdiff.training.dry_run import dry_run

        for what, how_much in dry_run(config, images.count):
            tell(f"{what:16}{how_much}", **{what: how_much})
        return 0
    dataset, held_out = open_images(images)

    from medsegdiff.training.interruption import Interrupted
    from medsegdiff.training.loop import train as run_training

    try:
        last = run_training(config, dataset, held_out, images.about)
    except Interrupted as stop:
        tell(f"stopped by {stop}; the same command continues", stopped=str(stop))
        return stop.exit_code
    steps = int(last.name[5:])
    tell(f"trained {steps} steps; the checkpoint is {last}", steps=steps, checkpoint=last)
    if ranks.rank() == 0:
        _say_best(last)
    return 0


def _say_best(last: Path) -> None:
    """Print the best Dice of a training that ended with the checkpoint `last`, where it is, and the next command."""
    from medsegdiff.checkpoints.folder import BEST, list_checkpoints, read_state

    state = read_state(last)
    progress, best = state["training"].get("validation", {}), last.parent / BEST
    chosen = best if list_checkpoints(best) else last.parent
    if progress.get("best_step"):
        said = f"best validation Dice {progress['best']:.4f}, at step {progress['best_step']}: {chosen}"
        tell(said, best_dice=progress["best"], best_step=progress["best_step"], best=chosen)
    words = ["medsegdiff", "sample", "--model-path", str(chosen), "--data-dir", state["config"]["data_dir"]]
    tell(f"next: {shlex.join(words)}", next=words)
