"""Weights that other programs saved (`.pt`, `.pkl`): find their options and check them as strictly as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import digest
from medsegdiff.base.randomness import generator
from medsegdiff.base.reading import read_json
from medsegdiff.checkpoints.card import card_of
from medsegdiff.checkpoints.finite import broken
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.recognise import recognise
from medsegdiff.checkpoints.torch_file import read_weights
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig

_COUNTER = "num_batches_tracked"  # of PyTorch's batch norms, which use it for nothing
_PROJECTION = "hwm.bottleneck_proj"
_LISTED, _LONGEST = 4, 100  # names of each fault, and characters of each


class Adapted(NamedTuple):
    """Weights that were made to fit."""

    weights: Weights
    notes: list[str]
    """What was adapted."""


def load_foreign(path: Path, options: Mapping[str, Any], which: str = "ema", usual: Mapping[str, Any] = {}) -> Adapted:
    """The weights in a `.pt` or `.pkl` file.

    The weights tell most of the network's options. The others come from `options`, or from a model card beside the
    file, and what neither has from `usual`. `options` and the card say what must be, `usual` gives way to the weights.

    Raises:
        InputError: the file cannot be read or is refused, options are missing, or the weights do not fit.
    """
    arrays = {name: array for name, array in read_weights(path, which).items() if not name.endswith(_COUNTER)}
    carded, notes = _from_card(path)
    given = {**carded, **options}
    found = _recognised(path, arrays, given.get("image_size"), usual.get("image_size"))
    given = {**usual, **found, **given}
    heads: tuple[str, ...] = () if given.get("num_head_channels", -1) > 0 else ("num_heads",)
    if found.get("ssformer", "none") != "none":
        heads += ("ssformer_heads",)
    missing = [name for name in ("image_size", *heads, "diffusion_steps") if name not in given]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise InputError(f"{path}: weights do not tell {names}; give them, or the file of options of the training")
    config = RunConfig.from_flat(given)
    fitting, adapted = fit(arrays, config.network, str(path))
    return Adapted(Weights(config, fitting, str(path)), [*notes, *adapted])


def _from_card(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The options in the model card beside a file, and that it may be another's."""
    card = card_of(path)
    if not card.is_file():
        return {}, []
    try:
        told = read_json(card)
        every = RunConfig.from_flat(told["config"]).flat()
        options, files = {name: every[name] for name in told["config"] if name in every}, dict(told.get("files", {}))
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{card}: damaged, or no model card; remove it, or copy it anew") from None
    if not files or digest(path) in files.values():
        return options, []
    return options, [f"has changed since {card.name} was written, whose options are taken: see that they are still so"]


def _recognised(path: Path, arrays: Mapping[str, np.ndarray], *sizes: Optional[int]) -> dict[str, Any]:
    try:
        return recognise({name: array.shape for name, array in arrays.items()}, *sizes)
    except KeyError as error:
        reason = f"it has no {error.args[0]}"
    except (IndexError, ValueError, ZeroDivisionError):  # too few axes, or sizes that make no sense
        reason = "its shapes are another's"
    raise InputError(f"{path}: holds no weights of a MedSegDiff network: {reason}")


def fit(
    arrays: Mapping[str, np.ndarray], config: NetworkConfig, source: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """`arrays` in float32, complete, and what was adapted.

    The published code of version "v1" draws the layer `hwm.bottleneck_proj` anew in every call and never saves it. Here
    it gets the values with which a training with seed 0 begins.

    Raises:
        InputError: one is missing, unknown, of another shape or not finite; `source` is named.
    """
    wanted = shapes(config)
    drawn = {name for name in wanted if name.startswith(_PROJECTION) and name not in arrays}
    differing = [name for name in wanted.keys() & arrays.keys() if arrays[name].shape != wanted[name]]
    faults = {
        "missing": wanted.keys() - arrays.keys() - drawn,
        "unknown": arrays.keys() - wanted.keys(),
        "of another shape": [f"{name} {tuple(arrays[name].shape)} instead of {wanted[name]}" for name in differing],
    }
    told = [f"{len(names)} {fault}: {_listed(sorted(names))}" for fault, names in faults.items() if names]
    if told:
        raise InputError(f"{source}: does not fit the network of its options; {'; '.join(told)}")
    if found := broken(arrays):
        raise InputError(f"{source}: cannot be used: {found}")
    fitting = {name: np.ascontiguousarray(arrays[name], np.float32) for name in wanted if name not in drawn}
    notes = []
    if drawn:
        shape = wanted[f"{_PROJECTION}.weight"]
        draw = generator(0, "init", _PROJECTION).standard_normal(shape, np.float32)
        fitting[f"{_PROJECTION}.weight"] = draw * np.float32(np.sqrt(2 / (1 + 0.01**2) / shape[1]))
        fitting[f"{_PROJECTION}.bias"] = np.zeros(shape[0], np.float32)
        notes.append(
            f"has no {_PROJECTION}, which the published code draws at random in every call and never trains; it gets "
            "fixed random values, so that results repeat, and should be trained further"
        )
    if any(array.dtype == np.float64 for array in arrays.values()):
        notes.append("float64 is rounded to float32")
    return fitting, notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name[:_LONGEST] for name in names[:_LISTED]) + more
