"""Weights by name: in and out of a network, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.runtime.backend import jt, persistent

Var = Any  # jt.Var


def state(network: Any) -> dict[str, Var]:
    """Every parameter and buffer of `network` by its published name."""
    return dict(network.named_parameters())


def parameters(network: Any) -> dict[str, Var]:
    """What is trained: the state without the running statistics."""
    return {name: value for name, value in state(network).items() if not is_buffer(name)}


def is_buffer(name: str) -> bool:
    """Whether `name` is a running statistic."""
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def to_arrays(values: Mapping[str, Var]) -> dict[str, np.ndarray]:
    """Copies as float32 NumPy arrays."""
    jt.sync_all()
    return {name: np.array(value.numpy(), copy=True) for name, value in values.items()}


def load(network: Any, arrays: Mapping[str, np.ndarray], source: str = "the weights") -> list[str]:
    """Put `arrays` into `network`, all or none; returns what was adapted, a line each.

    Two things are adapted. The published code draws the layer `hwm.bottleneck_proj` anew at every call,
    so its checkpoints lack it: it keeps its initial values. And the FF-Parser's spectral weights of
    another image size are resampled. PyTorch's `num_batches_tracked` counters are passed over.

    Raises:
        InputError: a name is missing or unknown, or a shape differs; `source` is named.
    """
    own = state(network)
    given = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    notes = []
    redrawn = {name for name in own.keys() - given.keys() if name.startswith("hwm.bottleneck_proj.")}
    if redrawn:
        notes.append(f"{source}: has no hwm.bottleneck_proj, as published checkpoints; it keeps its initial values")
    for name in (name for name in own.keys() & given.keys() if name.endswith("complex_weight")):
        theirs, ours = given[name].shape, tuple(own[name].shape)
        if theirs != ours and theirs[0] == ours[0]:
            notes.append(f"{source}: {name} is resampled from another image size")
            given[name] = resample_spectrum(given[name], ours[1])
    missing, unknown = sorted(own.keys() - given.keys() - redrawn), sorted(given.keys() - own.keys())
    shapes = {name: (tuple(given[name].shape), tuple(own[name].shape)) for name in own.keys() & given.keys()}
    differing = sorted(name for name, (theirs, ours) in shapes.items() if theirs != ours)
    if missing or unknown or differing:
        first = (missing or unknown or differing)[0]
        detail = f", {shapes[first][0]} instead of {shapes[first][1]}" if first in shapes else ""
        raise InputError(
            f"{source}: made for another network: {len(missing)} parameters missing, {len(unknown)} unknown, "
            f"{len(differing)} of another shape (first: {first}{detail}); "
            "give the network options that it was trained with"
        )
    for name in own.keys() & given.keys():
        own[name].assign(persistent(np.ascontiguousarray(given[name], dtype=np.float32)))
    return sorted(notes)


def resample_spectrum(weight: np.ndarray, size: int) -> np.ndarray:
    """Spectral weights (C, H, H/2 + 1, 2) for maps of another `size`: bilinear over frequency.

    Frequency is in cycles per pixel; along H it is periodic, along W it goes from 0 to one half.
    """
    along_h = _interpolation(weight.shape[1], size, size, periodic=True)
    along_w = _interpolation(weight.shape[1], size, size // 2 + 1, periodic=False)
    return np.einsum("ih,chwp,jw->cijp", along_h, weight.astype(np.float64), along_w).astype(np.float32)


def _interpolation(old: int, new: int, count: int, periodic: bool) -> np.ndarray:
    """(count, rows) matrix of linear interpolation from frequencies k / old to k / new."""
    rows = old if periodic else old // 2 + 1
    position = np.arange(count) * old / new
    low = np.floor(position).astype(int)
    high = low + 1
    low, high = (low % rows, high % rows) if periodic else (low, np.minimum(high, rows - 1))
    share = position - np.floor(position)
    matrix = np.zeros((count, rows))
    np.add.at(matrix, (np.arange(count), low), 1 - share)
    np.add.at(matrix, (np.arange(count), high), share)
    return matrix
