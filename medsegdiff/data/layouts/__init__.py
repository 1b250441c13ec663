"""How folders of datasets are laid out: from a folder to its cases, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from medsegdiff.data.cases import Case
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.spec import DataSpec


class Layout(Protocol):
    """A module of this folder."""

    def matches(self, root: Path) -> bool:
        """Whether a folder looks like this layout; it may be missing."""
        ...

    def find(self, root: Path, split: str, need_masks: bool = True) -> list[Case]:
        """The cases of a split of its own, "train" or "test"; of "test" none where the layout has no such split.

        Raises:
            InputError: there is no such dataset, or with `need_masks` an image lacks its mask.
        """
        ...

    def spec(self, root: Path, measure: Measure) -> DataSpec:
        """What the files' values mean: what the folder itself says of it, and what measuring the files finds.

        Raises:
            InputError: a description in it cannot be read.
        """
        ...
