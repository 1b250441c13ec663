"""Checkpoints: whole folders `step-000123/`, checked when read."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from medsegdiff import __version__
from medsegdiff.engine.config import RunConfig
from medsegdiff.runtime.errors import InputError
from medsegdiff.runtime.files import replacing

_STATE = "state.json"
_FOLDER = re.compile(r"step-(\d+)")


@dataclass
class Checkpoint:
    """What a training run needs to go on, and sampling to start."""

    step: int
    config: RunConfig
    arrays: dict[str, dict[str, np.ndarray]]
    """One group of arrays for each file: "model", "ema-RATE", "optimizer"."""
    training: dict[str, Any]
    """What else training needs: the timestep sampler, the logs' pending means."""
    dataset: str = ""
    """Fingerprint of the training data."""


def _digest(path: Path) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 22), b""):
            hasher.update(block)
    return hasher.hexdigest()


def save(out: Path, checkpoint: Checkpoint, keep: int = 0) -> Path:
    """Write `checkpoint` into `out/step-NNNNNN`, then remove all but the `keep` newest (0: none).

    Raises:
        InputError: the disk is full or read-only; the checkpoints that were there stay whole.
    """
    path = out / f"step-{checkpoint.step:06d}"
    with replacing(path) as beside:
        beside.mkdir()
        for group, arrays in checkpoint.arrays.items():
            _save_arrays(beside / f"{group}.safetensors", arrays)
        state = {
            "step": checkpoint.step,
            "config": checkpoint.config.flat(),
            "training": checkpoint.training,
            "dataset": checkpoint.dataset,
            "code_version": __version__,
            "checksums": {file.name: _digest(file) for file in sorted(beside.glob("*.safetensors"))},
        }
        (beside / _STATE).write_text(json.dumps(state, indent=1))
    if keep:
        for old in list_checkpoints(out)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return path


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except SafetensorError as error:  # it hides the operating system's number in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), str(error), str(path)) from error


def list_checkpoints(out: Path) -> list[Path]:
    """The checkpoint folders of `out`, oldest first."""
    found = [(int(m.group(1)), path) for path in out.glob("step-*") if (m := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def read_state(path: Path) -> dict[str, Any]:
    """`state.json` of the checkpoint folder `path`.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        state = json.loads((path / _STATE).read_text())
        kinds = {"step": int, "config": dict, "training": dict, "dataset": str, "checksums": dict}
        return {**state, **{name: kind(state[name]) for name, kind in kinds.items()}}
    except FileNotFoundError:
        raise InputError(f"{path}: not a checkpoint: it has no {_STATE}; give a folder step-NNNNNN") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path / _STATE}: damaged; use another checkpoint") from None


def load(path: Path, groups: Optional[list[str]] = None) -> Checkpoint:
    """Read the checkpoint folder `path`, all groups of arrays or only `groups`.

    Raises:
        InputError: a file is missing or is not what was written.
    """
    state = read_state(path)
    checksums: Mapping[str, str] = state["checksums"]
    names = [name.rpartition(".")[0] for name in checksums] if groups is None else groups
    arrays = {}
    for group in names:
        file = path / f"{group}.safetensors"
        if not file.is_file():
            raise InputError(f"{file}: missing; use another checkpoint")
        if _digest(file) != checksums.get(file.name):
            raise InputError(f"{file}: damaged (its checksum differs); use another checkpoint")
        arrays[group] = load_file(file)
    config = RunConfig.from_flat(state["config"])
    return Checkpoint(state["step"], config, arrays, state["training"], state["dataset"])


def load_newest(out: Path) -> tuple[Optional[Checkpoint], list[str]]:
    """The newest whole checkpoint of `out`, or None, and what is wrong with newer ones."""
    complaints = []
    for path in reversed(list_checkpoints(out)):
        try:
            return load(path), complaints
        except InputError as error:
            complaints.append(str(error))
    return None, complaints


class Weights(NamedTuple):
    """Trained weights, with the configuration of the run they come from."""

    config: RunConfig
    arrays: dict[str, np.ndarray]
    source: str
    """The file they were read from."""


def load_weights(path: Path, which: str = "ema") -> Weights:
    """The weights to sample with.

    Args:
        path: a run's folder (its newest checkpoint is taken), a checkpoint folder, or a
            `.safetensors` file: one inside a checkpoint, or one with the config in its metadata
        which: "ema" (the first average) or "model" (the raw weights)

    Raises:
        InputError: nothing is there, it is damaged, or it is of another kind.
    """
    if path.is_file():
        return _load_file(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; give a run's folder, step-NNNNNN or a .safetensors file")
    if not (path / _STATE).is_file():
        checkpoints = list_checkpoints(path)
        if not checkpoints:
            raise InputError(f"{path}: holds no checkpoint (step-NNNNNN); train first, or give another folder")
        path = checkpoints[-1]
    names = sorted(read_state(path)["checksums"])
    averages = [name.rpartition(".")[0] for name in names if name.startswith("ema-")]
    group = averages[0] if which == "ema" and averages else "model"
    checkpoint = load(path, [group])
    return Weights(checkpoint.config, checkpoint.arrays[group], f"{path / group}.safetensors")


def _load_file(path: Path) -> Weights:
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: not a .safetensors file; give one, or a checkpoint folder step-NNNNNN")
    if (path.parent / _STATE).is_file():
        checkpoint = load(path.parent, [path.stem])
        return Weights(checkpoint.config, checkpoint.arrays[path.stem], str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = load_file(path)
        options = json.loads(metadata["config"])
    except KeyError:
        raise InputError(f"{path}: no configuration in it; give the checkpoint folder it came from") from None
    except (SafetensorError, ValueError, OSError):
        raise InputError(f"{path}: damaged or not a .safetensors file") from None
    return Weights(RunConfig.from_flat(options), arrays, str(path))
