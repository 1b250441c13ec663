"""What nnU-Net's and the Decathlon's `dataset.json` says, and the folders beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note, read_text
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

    Raises:
        InputError: the description cannot be read or names no labels.
    """
    path = root / FILE
    if not path.is_file():
        return measure().spec()
    try:
        content = json.loads(read_text(path))
        channels = content.get("channel_names") or content.get("modality") or {}
        labels = _labels(path, content["labels"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not the description of a dataset ({error!r}); restore it") from None
    is_ct = any(str(name).upper() == "CT" for name in dict(channels).values())
    return dataclasses.replace(measure().spec(is_ct=is_ct, labels=labels))


def _labels(path: Path, labels: dict[str, Any]) -> dict[int, int]:
    """The values in their order, each a class of its own; "ignore", which only nnU-Net knows, is background."""
    values: set[int] = set()
    regions = False
    for key, value in labels.items():
        if isinstance(value, str):  # the Decathlon's, the value first
            key, value = value, int(key)
        regions = regions or isinstance(value, list)
        values.update(() if key == "ignore" else map(int, value if isinstance(value, list) else [value]))
    if regions:
        note(path, "names regions, which overlap; each value is a class of its own")
    return {value: place for place, value in enumerate(sorted(values - {0}), 1)}
