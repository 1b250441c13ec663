"""Values of masks and the classes that they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note

_MOST_CLASSES = 256
_HIGHEST = (1 << 31) - 1  # of a mask's values
_PAIR = re.compile(r"(-?[0-9]+)(?::([0-9]+))?")


def parse_labels(text: str) -> dict[int, int]:
    """Labels as an option: "1,2,4", whose classes are 1, 2, 3, or a map "1:1,2:1,4:2"; empty: none.

    Raises:
        InputError: it is neither, or classes are not 1, 2, ... without gaps.
    """
    if not text:
        return {}
    pairs = [_PAIR.fullmatch(part.strip()) for part in text.split(",")]
    mapped = [pair is not None and pair[2] is not None for pair in pairs]
    if any(pair is None for pair in pairs) or any(mapped) != all(mapped):
        raise InputError(f'`labels` "{text[:40]}": give values as "1,2,4", or each with its class as "1:1,2:1,4:2"')
    found = {int(pair[1]): int(pair[2]) if pair[2] else place for place, pair in enumerate(pairs, 1) if pair}
    classes = {label for label in found.values() if label}
    if len(found) < len(pairs) or classes != set(range(1, len(classes) + 1)) or not 0 < len(classes) < _MOST_CLASSES:
        raise InputError(f'`labels` "{text[:40]}": name each value once, and classes 1, 2, ... without gaps')
    if max(map(abs, found)) > _HIGHEST:
        raise InputError(f'`labels` "{text[:40]}": a mask\'s values are at most {_HIGHEST}')
    return found


def format_labels(labels: Mapping[int, int]) -> str:
    """What `parse_labels` reads."""
    return ",".join(f"{value}:{label}" for value, label in labels.items())


def count_classes(labels: Mapping[int, int]) -> int:
    """How many classes there are, background included; 2 without labels."""
    return max(labels.values(), default=1) + 1


def classes_of(labels: Mapping[int, int], num_classes: int) -> int:
    """How many classes there are: those of the labels, or without labels `num_classes`, by default 2.

    Raises:
        InputError: both are given, and differ.
    """
    if not labels:
        return num_classes
    found = count_classes(labels)
    if num_classes not in (2, found):
        raise InputError(f"`num_classes` {num_classes}: the labels name {found}, background included; leave it out")
    return found


def to_classes(values: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """The values of a mask as class indices, uint8 of the same shape; values without a label are background."""
    found = np.zeros(values.shape, np.uint8)
    for value, label in labels.items():
        found[values == value] = label
    return found


def to_values(classes: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Class indices as the values that masks have for them, the first ones where several mean one class."""
    table = np.arange(max(count_classes(labels), int(classes.max(initial=0)) + 1))
    for value, label in reversed(list(labels.items())):
        table[label] = value
    table[0] = background_of(labels)
    ends = (np.iinfo(kind) for kind in (np.uint8, np.int16, np.int32, np.int64))
    return table.astype(next(end.dtype for end in ends if end.min <= table.min() <= table.max() <= end.max))[classes]


def background_of(labels: Mapping[int, int]) -> int:
    """The value of the background: 0, or where that is a class another one without a class, else 255."""
    if not labels.get(0, 0):
        return 0
    return next((value for value, label in labels.items() if not label), 255)


def without_label(values: np.ndarray, labels: Mapping[int, int]) -> list[int]:
    """The values of a mask, that of the background apart, which the labels lack."""
    return sorted({int(value) for value in np.unique(values)} - {background_of(labels), *labels})


def labelled(values: np.ndarray, labels: Mapping[int, int], path: Path) -> np.ndarray:
    """The values of the mask `path` as class indices, uint8 of the same shape; of those without a label a note."""
    if unknown := without_label(values, labels):
        note(path, f"holds the values {', '.join(map(str, unknown[:5]))}, which are not labels: background")
    return to_classes(values, labels)


def whole_numbers(values: np.ndarray, path: object) -> np.ndarray:
    """Labels that a file may hold as fractions.

    Raises:
        InputError: they are no whole numbers.
    """
    if values.dtype.kind != "f":
        return values
    rounded = np.rint(values)
    if not (np.abs(values) <= _HIGHEST).all() or np.abs(values - rounded).max(initial=0) > 1e-3:
        raise InputError(
            f"{path}: holds values that are not whole numbers, or too large; a mask holds labels: export it again"
        )
    return rounded.astype(np.int32)
