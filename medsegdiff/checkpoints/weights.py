"""The weights of a trained network: from a run, a checkpoint, or a file of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import reading
from medsegdiff.checkpoints.folder import configuration, finite, list_checkpoints, load
from medsegdiff.checkpoints.state import STATE, read_state
from medsegdiff.config.run import RunConfig

_KINDS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}  # the last is the upper half of a float32


class Weights(NamedTuple):
    """Trained weights, with the configuration of the run they come from."""

    config: RunConfig
    arrays: dict[str, np.ndarray]
    source: str
    """The file they were read from."""
    data: Mapping[str, Any] = MappingProxyType({})
    """What was saved of the dataset: its split and fingerprint."""


def load_weights(path: Path, which: str = "ema") -> Weights:
    """The weights to sample with.

    Args:
        path: a run's folder (its newest checkpoint that is whole is taken), a checkpoint folder, or a
            `.safetensors` file: one inside a checkpoint, or one with the config in its metadata
        which: "ema" (the first average) or "model" (the raw weights)

    Raises:
        InputError: nothing is there, it is damaged, not finite, or of another kind.
    """
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; give a run's folder, step-NNNNNN or a .safetensors file")
    if not path.is_dir():
        return _load_file(path)
    if (path / STATE).is_file():
        return _weights_of(path, which)
    found = list_checkpoints(path)
    if not found:
        raise InputError(f"{path}: holds no checkpoint (step-NNNNNN); train first, or give another folder")
    for newer in reversed(found[1:]):
        try:
            return _weights_of(newer, which)
        except InputError as error:
            screen.note(f"skipped: {error}")
    return _weights_of(found[0], which)


def _weights_of(path: Path, which: str) -> Weights:
    state = read_state(path)
    first = "ema-" + str(state["config"].get("ema_rate", "")).split(",")[0].strip()
    return _group_of(path, first if which == "ema" and f"{first}.safetensors" in state["checksums"] else "model")


def _group_of(path: Path, group: str) -> Weights:
    """One of a checkpoint's groups of arrays."""
    checkpoint = load(path, [group])
    data = checkpoint.training.get("data", {})
    if not isinstance(data, dict) or not isinstance(data.get("split", {}), dict):
        raise InputError(f"{path / STATE}: damaged; use another checkpoint")
    return Weights(checkpoint.config, checkpoint.arrays[group], f"{path / group}.safetensors", data)


def _load_file(path: Path) -> Weights:
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: not a .safetensors file; give one, or a checkpoint folder step-NNNNNN")
    if (path.parent / STATE).is_file():
        return _group_of(path.parent, path.stem)
    try:
        with reading(path), safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = {name: _float32(part, name, path) for name, part in deserialize(path.read_bytes())}
        options = json.loads(metadata["config"])
    except KeyError:
        raise InputError(f"{path}: no configuration in it; give the checkpoint folder it came from") from None
    except (SafetensorError, ValueError, OSError, RecursionError):
        raise InputError(f"{path}: damaged or not a .safetensors file") from None
    return Weights(configuration(options, path), finite(arrays, path), str(path))


def _float32(part: Mapping[str, Any], name: str, path: Path) -> np.ndarray:
    kind = part["dtype"]
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise InputError(f"{path}: {name[:100]} holds numbers of the kind {kind}; save it as one of {known}")
    numbers = np.frombuffer(part["data"], _KINDS[kind]).reshape(part["shape"])
    if kind == "BF16":
        return (numbers.astype("u4") << 16).view(np.float32)
    return numbers.astype(np.float32, copy=False)
