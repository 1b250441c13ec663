"""What the values of a dataset's files mean: channels, the scale of their intensities, labels, slices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.data.scaling import EIGHT_BITS, check_scaling
from medsegdiff.io.volumes import AXES

_MOST_CLASSES = 256
_PAIR = re.compile(r"(-?\d+)(?::(\d+))?")


@dataclass(frozen=True)
class DataSpec:
    """How files become what the network sees; saved with each checkpoint, so that sampling repeats it.

    Args:
        channels: of an image, whether in one file or several
        scaling: how intensities become [0, 1], see `data.scaling`
        labels: the class of each value of a mask, 0 being the background; values that it lacks are background.
            Empty: there are two classes, told apart by grey levels, see `io.masks.read_mask`; or, of more, the values
            are the classes
        colour: whether the channels are red, green and blue
        axis: across which volumes are cut into slices

    Raises:
        InputError: a value makes no sense.
    """

    channels: int = 3
    scaling: str = EIGHT_BITS
    labels: Mapping[int, int] = field(default_factory=dict)
    colour: bool = True
    axis: str = "axial"

    def __post_init__(self) -> None:
        check_scaling(self.scaling)
        if self.axis not in AXES:
            raise InputError(f"axis {self.axis}: must be one of {', '.join(AXES)}")
        classes = {label for label in self.labels.values() if label}
        if self.labels and classes != set(range(1, len(classes) + 1)):
            raise InputError(f"labels {format_labels(self.labels)}: classes must be 1, 2, ... without gaps")

    @property
    def num_classes(self) -> int:
        """Classes that the labels name, background included; 2 where there are no labels."""
        return max(self.labels.values(), default=1) + 1

    def classes(self, values: np.ndarray) -> np.ndarray:
        """The values of a mask as class indices, uint8 of the same shape."""
        found = np.zeros(values.shape, np.uint8)
        for value, label in self.labels.items():
            found[values == value] = label
        return found

    def unknown(self, values: np.ndarray) -> list[int]:
        """The values of a mask, 0 apart, that the labels lack."""
        return [int(value) for value in np.unique(values) if value and int(value) not in self.labels]

    def values(self, classes: np.ndarray) -> np.ndarray:
        """Class indices as the values that masks have for them, the first ones where several mean one class."""
        table = np.arange(self.num_classes)
        for value, label in reversed(list(self.labels.items())):
            table[label] = value
        if self.labels.get(0, 0):  # 0 is a class, so that the background is another value
            table[0] = next((value for value, label in self.labels.items() if not label), 255)
        else:
            table[0] = 0
        kind = np.uint8 if table.min() >= 0 and table.max() < 256 else np.int16
        return table.astype(kind)[classes]


def parse_labels(text: str) -> dict[int, int]:
    """Labels as an option: "1,2,4", whose classes are 1, 2, 3, or a map "1:1,2:1,4:2"; empty: none.

    Raises:
        InputError: it is neither.
    """
    if not text:
        return {}
    pairs = [_PAIR.fullmatch(part.strip()) for part in text.split(",")]
    mapped = [pair is not None and pair[2] is not None for pair in pairs]
    if any(pair is None for pair in pairs) or any(mapped) != all(mapped):
        raise InputError(f'labels "{text[:40]}": give values as "1,2,4", or each with its class as "1:1,2:1,4:2"')
    found = {int(pair[1]): int(pair[2]) if pair[2] else place for place, pair in enumerate(pairs, 1) if pair}
    if len(found) < len(pairs) or not any(found.values()) or max(found.values()) >= _MOST_CLASSES:
        raise InputError(f'labels "{text[:40]}": name each value once, and one class at least, below {_MOST_CLASSES}')
    return found


def format_labels(labels: Mapping[int, int]) -> str:
    """What `parse_labels` reads."""
    return ",".join(f"{value}:{label}" for value, label in labels.items())
