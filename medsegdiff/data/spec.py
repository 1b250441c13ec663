"""What the values of a dataset's files mean: channels, the scale of their intensities, labels, slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medsegdiff.data.scaling import EIGHT_BITS, check_scaling
from medsegdiff.io.labels import count_classes


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
        InputError: there is no such scaling.
    """

    channels: int = 3
    scaling: str = EIGHT_BITS
    labels: Mapping[int, int] = field(default_factory=dict)
    colour: bool = True
    axis: str = "axial"

    def __post_init__(self) -> None:
        check_scaling(self.scaling)

    @property
    def num_classes(self) -> int:
        """Classes that the labels name, background included; 2 where there are no labels."""
        return count_classes(self.labels)
