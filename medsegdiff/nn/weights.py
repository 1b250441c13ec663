"""Weights by name: in and out of a network, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.runtime.backend import Var, jt, persistent


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


def load(network: Any, arrays: Mapping[str, np.ndarray], source: str = "the weights") -> None:
    """Put `arrays` into `network`, all or none; those of others were made to fit (`checkpoints.foreign.fit`).

    Raises:
        InputError: a name is missing or unknown, or a shape differs; `source` is named.
    """
    own = state(network)
    missing, unknown = sorted(own.keys() - arrays.keys()), sorted(arrays.keys() - own.keys())
    shapes = {name: (tuple(arrays[name].shape), tuple(own[name].shape)) for name in own.keys() & arrays.keys()}
    differing = sorted(name for name, (theirs, ours) in shapes.items() if theirs != ours)
    if missing or unknown or differing:
        first = (missing or unknown or differing)[0]
        detail = f", {shapes[first][0]} instead of {shapes[first][1]}" if first in shapes else ""
        raise InputError(
            f"{source}: made for another network: {len(missing)} parameters missing, {len(unknown)} unknown, "
            f"{len(differing)} of another shape (first: {first}{detail}); "
            "give the network options that it was trained with"
        )
    for name, value in own.items():
        value.assign(persistent(np.ascontiguousarray(arrays[name], dtype=np.float32)))
