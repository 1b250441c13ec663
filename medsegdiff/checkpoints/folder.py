"""Checkpoints: whole folders `step-000123/` of finite numbers, checked when written and when read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from medsegdiff import __version__
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing
from medsegdiff.checkpoints.finite import REMEDY, broken
from medsegdiff.checkpoints.state import FOLDER, FORMAT, STATE, digest, read_state, sealed
from medsegdiff.config.run import RunConfig

BEST = "best"  # the folder, within a run's, that keeps the best checkpoint
_HIDDEN = re.compile(r"\.(step-\d+)\.[0-9a-f]+\.(tmp|old)")


@dataclass
class Checkpoint:
    """What a training run needs to go on, and sampling to start."""

    step: int
    config: RunConfig
    arrays: dict[str, dict[str, np.ndarray]]
    """One group of arrays for each file: "model", "ema-RATE", "optimizer"."""
    training: dict[str, Any]
    """What else training needs: the timestep sampler, the logs' pending means, the validation's best."""
    dataset: str = ""
    """Fingerprint of the training data."""


def save(out: Path, checkpoint: Checkpoint, keep: int = 0) -> Path:
    """Write `checkpoint` into `out/step-NNNNNN`, then remove all but the `keep` newest up to it (0: none).

    Later ones stay: damaged ones, if training went on from before them, which count for nothing.

    Raises:
        InputError: the disk is full or read-only, an array is not finite, or a folder of this name holds what is no
            part of a checkpoint; the checkpoints that were there stay whole.
    """
    path = out / f"step-{checkpoint.step:06d}"
    check_own(path)
    for group, arrays in checkpoint.arrays.items():
        if found := broken(arrays):
            raise InputError(f"{path / group}.safetensors: not saved: {found}; {REMEDY}")
    with replacing(path) as beside:
        beside.mkdir()
        for group, arrays in checkpoint.arrays.items():
            _save_arrays(beside / f"{group}.safetensors", arrays)
        state = {
            "format": FORMAT,
            "step": checkpoint.step,
            "config": checkpoint.config.flat(),
            "training": checkpoint.training,
            "dataset": checkpoint.dataset,
            "code_version": __version__,
            "checksums": {file.name: digest(file) for file in sorted(beside.glob("*.safetensors"))},
        }
        (beside / STATE).write_text(sealed(json.dumps(state, indent=1)), encoding="utf-8")
    found = list_checkpoints(out)
    for old in found[: max(0, found.index(path) + 1 - keep)] if keep else []:
        remove(old)
    return path


def check_own(path: Path) -> None:
    """Refuse to replace `path`, where something is, unless it is a folder with files of a checkpoint alone.

    Raises:
        InputError: it is not.
    """
    if foreign := _foreign(path):
        raise InputError(f"{foreign}: is not part of a checkpoint, and would be lost; move it elsewhere")


def _foreign(path: Path) -> Optional[Path]:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return path
    files = path.iterdir() if path.exists() else ()
    return next((file for file in files if file.name != STATE and file.suffix != ".safetensors"), None)


def remove(path: Path) -> None:
    """Remove a checkpoint; one whose removal is cut short does not stay behind as a damaged one.

    One that holds anything else stays.
    """
    if _foreign(path):
        return
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
    with contextlib.suppress(OSError):
        path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def tidy(out: Path) -> None:
    """Clear away what a killed process left half written or half removed in `out`, which nobody else may be using.

    A whole checkpoint that waited for its name, where none other bears it, gets it.
    """
    for path in sorted(out.glob(".step-*")):
        found = _HIDDEN.fullmatch(path.name)
        if found is None:
            continue
        name, kind = found.groups()
        if kind == "tmp" and not (out / name).exists() and _is_whole(path, int(name[5:])):
            path.rename(out / name)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_whole(path: Path, step: int) -> bool:
    try:
        return load(path).step == step
    except InputError:
        return False


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
        with contextlib.suppress(OSError):  # of a file system without owners
            path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors forbids all others to read it
    except SafetensorError as error:  # it hides the operating system's number in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), str(error), str(path)) from error


def list_checkpoints(out: Path) -> list[Path]:
    """The checkpoint folders of `out`, oldest first."""
    found = [(int(m.group(1)), path) for path in out.glob("step-*") if (m := FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load(path: Path, groups: Optional[list[str]] = None) -> Checkpoint:
    """Read the checkpoint folder `path`, all groups of arrays or only `groups`.

    Raises:
        InputError: a file is missing, is not what was written, or holds an array that is not finite.
    """
    state = read_state(path)
    checksums: Mapping[str, str] = state["checksums"]
    names = [name.rpartition(".")[0] for name in checksums] if groups is None else groups
    arrays = {group: _load_arrays(path / f"{group}.safetensors", checksums) for group in names}
    config = configuration(state["config"], path / STATE)
    return Checkpoint(state["step"], config, arrays, state["training"], state["dataset"])


def configuration(options: Any, file: Path) -> RunConfig:
    """What `file` says of the run it comes from.

    Raises:
        InputError: it is not understood.
    """
    if not isinstance(options, dict):
        raise InputError(f"{file}: its configuration is not a list of options; use another checkpoint")
    try:
        return RunConfig.from_flat(options)
    except InputError as error:
        raise InputError(f"{file}: its configuration is not understood: {error}") from None


def _load_arrays(file: Path, checksums: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not file.exists():
        raise InputError(f"{file}: missing; use another checkpoint")
    try:
        if digest(file) != checksums.get(file.name):
            raise InputError(f"{file}: damaged (its checksum differs); use another checkpoint")
        return finite(load_file(file), file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); use another checkpoint") from None


def finite(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The arrays of `file`.

    Raises:
        InputError: one of them is not finite.
    """
    if found := broken(arrays):
        raise InputError(f"{file}: cannot be used: {found}; use another checkpoint")
    return arrays


def load_newest(out: Path) -> tuple[Optional[Checkpoint], list[str]]:
    """The newest whole checkpoint of `out`, or None, and what is wrong with newer ones.

    Raises:
        InputError: one may not be read: it may be whole, and training must not go on from before it.
    """
    complaints = []
    for path in reversed(list_checkpoints(out)):
        for part in (path, *path.glob("*")):
            if part.exists() and not os.access(part, os.R_OK):
                raise InputError(f"{part}: permission denied; make it readable, or move {path.name} elsewhere")
        try:
            return load(path), complaints
        except InputError as error:
            complaints.append(str(error))
    return None, complaints
