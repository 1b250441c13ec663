"""Weights to sample with, ours or others'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note
from medsegdiff.checkpoints.foreign import Adapted, load_foreign
from medsegdiff.checkpoints.shipped import find_model
from medsegdiff.checkpoints.torch_file import SUFFIXES
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.run import read_run


def is_foreign(path: Union[str, Path]) -> bool:
    """Whether this is another program's file, by its name."""
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
    told, usual = {}, {}
    if trained_as:
        written = read_run(trained_as)
        told, usual = written.given, written.config.flat()
    loaded = load_foreign(path, {**told, **options}, which, usual)
    for line in loaded.notes:
        note(path, line)
    return loaded
