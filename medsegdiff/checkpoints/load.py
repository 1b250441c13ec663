"""Weights to sample with, ours or others'."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note
from medsegdiff.checkpoints.foreign import Adapted, load_foreign
from medsegdiff.checkpoints.shipped import find_model
from medsegdiff.checkpoints.torch_file import SUFFIXES
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.files import read_config
from medsegdiff.config.run import RunConfig


def is_foreign(path: Union[str, Path]) -> bool:
    """Whether this is a file of another program, by its name."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def load_any(
    path: Path, which: str = "ema", trained_as: Union[str, Path] = "", options: Mapping[str, Any] = {}
) -> Adapted:
    """The weights in a run's folder, a checkpoint, a `.safetensors` file, or a `.pt` or `.pkl` file of others.

    Args:
        path: where they are, or the name of a network that comes with the package
        which: "ema" or "model"
        trained_as: file of options (YAML), or the name of one that comes with the package, that a file of others was
            trained with; what it leaves out is as the weights show, or else as it is by default
        options: single ones of them; they override the file's

    Raises:
        InputError: nothing is there, it cannot be read, or its options are not known.
    """
    path = find_model(path)
    if not is_foreign(path):
        if trained_as or options:
            given = ", ".join(f"`{name}`" for name in [*(["trained_as"] if trained_as else []), *options])
            raise InputError(f"{given}: for .pt and .pkl files of others; {path} has its own options")
        return Adapted(load_weights(path, which), [])
    told, usual = _trained_as(trained_as) if trained_as else ({}, {})
    loaded = load_foreign(path, {**told, **options}, which, usual)
    for line in loaded.notes:
        note(path, line)
    return loaded


def _trained_as(name: Union[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that a file gives, and all options of a training by it: the others are as they are by default."""
    given = {str(option).replace("-", "_"): value for option, value in read_config(name).items()}
    every = RunConfig.from_flat(given).flat()
    for option in given.keys() - every.keys() - {"dry_run"}:  # which `train --print-config` writes, too
        near = difflib.get_close_matches(option, every, 1)
        remedy = f"did you mean {near[0]}?" if near else "remove it"
        raise InputError(f"{name}: {option}: no such option of a training; {remedy}")
    return {option: every[option] for option in given if option in every}, every
