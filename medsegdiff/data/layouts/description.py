"""What nnU-Net's and the Decathlon's `dataset.json` says, and the folders beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note, read_json
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts.pairs import Pair
from medsegdiff.data.spec import DataSpec

FILE = "dataset.json"


def pair_of(root: Path, split: str) -> Optional[Pair]:
    """`imagesTr` and `labelsTr`; for "test" `imagesTs` and `labelsTs`, where there are both."""
    end = {"train": "Tr", "test": "Ts"}.get(split, "")
    images, labels = root / f"images{end}", root / f"labels{end}"
    if not end or not images.is_dir() or (split == "test" and not labels.is_dir()):
        return None
    return Pair(images, labels)


def spec(root: Path, measure: Measure) -> DataSpec:
    """What the files are, with the labels of the description, where there is one.

    Each value but 0 is a class of its own, in order; "ignore", which only nnU-Net knows, is background.

    Raises:
        InputError: the description cannot be read or names no labels.
    """
    if not (root / FILE).is_file():
        return measure().spec()
    channels, labels = _read(root)
    named = regions(root)
    if named:
        one = next(iter(named))
        said = f'each value is a class of its own; `labels` "{one}" makes one class of that region'
        note(root / FILE, f"names regions, which overlap ({', '.join(named)}); {said}")
    found = measure()
    if channels and len(channels) != found.channels:
        note(root / FILE, f"names {len(channels)} channels, and the images have {found.channels}, which are read")
    is_ct = bool(channels) and all(str(name).upper() == "CT" for name in channels.values())
    return found.spec(is_ct=is_ct, labels={value: place for place, value in enumerate(_values(labels), 1)})


def regions(root: Path) -> dict[str, dict[int, int]]:
    """Where a label has several values, of each name the class of every value: 1 inside the region, else 0.

    Raises:
        InputError: as `spec`.
    """
    labels = _read(root)[1] if (root / FILE).is_file() else {}
    if all(len(inside) == 1 for inside in labels.values()):
        return {}
    named = {name: inside for name, inside in labels.items() if inside != {0}}
    return {name: {value: int(value in inside) for value in _values(labels)} for name, inside in named.items()}


def _values(labels: dict[str, set[int]]) -> list[int]:
    return sorted(set().union(*labels.values()) - {0})


def _read(root: Path) -> tuple[dict[str, Any], dict[str, set[int]]]:
    """The names of the channels by their numbers, and the values of each label by its name."""
    path = root / FILE
    try:
        content, found = read_json(path), {}
        channels = dict(content.get("channel_names") or content.get("modality") or {})
        for key, value in content["labels"].items():
            value_first = isinstance(value, str) and key.isdigit()  # as the Decathlon has them
            name, own = (value, [key]) if value_first else (key, value)
            if name != "ignore":
                found[name] = set(map(int, own if isinstance(own, list) else [own]))
        return channels, found
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}: not the description of a dataset ({error!r}); restore it") from None
