"""Weights to sample with, ours or others'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note, read_yaml
from medsegdiff.checkpoints.folder import load_weights
from medsegdiff.checkpoints.foreign import Adapted, load_foreign
from medsegdiff.checkpoints.torch_file import SUFFIXES
from medsegdiff.config.files import find_config


def load_any(
    path: Path, which: str = "ema", trained_as: Union[str, Path] = "", options: Mapping[str, Any] = {}
) -> Adapted:
    """The weights in a run's folder, a checkpoint, a `.safetensors` file, or a `.pt` or `.pkl` file of others.

    Args:
        path: where they are
        which: "ema" or "model"
        trained_as: file of options (YAML), or the name of one that comes with the package, that a file of others was
            trained with
        options: single ones of them; they override the file's

    Raises:
        InputError: nothing is there, it cannot be read, or its options are not known.
    """
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        if trained_as or options:
            given = ", ".join([*(["trained_as"] if trained_as else []), *options])
            raise InputError(f"{given}: for .pt and .pkl files of others; {path} has its own options")
        return Adapted(load_weights(path, which), [])
    found = read_yaml(find_config(trained_as)) if trained_as else {}
    if not isinstance(found, dict):
        raise InputError(f"{trained_as}: holds no options; write lines such as `image_size: 256`")
    loaded = load_foreign(path, {**found, **options}, which)
    for line in loaded.notes:
        note(path, line)
    return loaded
