"""What was sampled of one volume, slice by slice, at the slices' own size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.data.cases import Case
from medsegdiff.data.prepared import Prepared
from medsegdiff.data.source import read_source, shown
from medsegdiff.inference.files import Extras, row_of
from medsegdiff.inference.results import save
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.inference.volumes import write_case
from medsegdiff.masks.decision import decide
from medsegdiff.masks.resizing import resize_probability


class VolumeSegmentation:
    """What is known of one volume; its slices are numbered from 0, as a viewer shows them.

    Its files must stay where they are for as long as this is used.
    """

    def __init__(self, case: Case, dataset: Prepared, slices: Sequence[ImageResult], settings: dict[str, Any]) -> None:
        self._case, self._dataset, self._settings = case, dataset, settings
        self._slices = {dataset.slices[one.index][1]: one for one in slices}

    @property
    def id(self) -> str:
        """The volume's name."""
        return self._case.id

    @property
    def numbers(self) -> list[int]:
        """The slices that were segmented; the others are background."""
        return sorted(self._slices)

    @property
    def agreement(self) -> Optional[float]:
        """Expected Dice of two members, in [0, 1], the mean over slices in which not all are empty; None for one."""
        return row_of(list(self._slices.values())).agreement

    @cached_property
    def images(self) -> np.ndarray:
        """(D, H, W, 3) uint8: the slices, each in colour, or its first channel as the network's scaling shows it."""
        spec = self._dataset.form.spec
        return shown(read_source(self._case, spec), spec)

    def mask(self, number: int) -> np.ndarray:
        """(H, W) uint8: the class of each pixel of a slice.

        Raises:
            InputError: the slice was not segmented; so does `std`.
        """
        return decide(self._at_own_size(self._slice(number).probability))

    def std(self, number: int) -> np.ndarray:
        """(H, W) float32 in [0, 0.5]: standard deviation over the members of a slice, the largest of all classes."""
        return self._at_own_size(self._slice(number).std).max(axis=0)

    def _slice(self, number: int) -> ImageResult:
        if number not in self._slices:
            raise InputError(f"slice {number} of {self.id} was not segmented; .numbers lists those that were")
        return self._slices[number]

    def _at_own_size(self, channels: np.ndarray) -> np.ndarray:
        size = self._dataset.original_sizes[0]
        return np.stack([resize_probability(channel, size) for channel in channels])

    def save(self, folder: Union[str, Path], *, overlay: bool = True, maps: bool = False) -> Path:
        """Write the files that `medsegdiff sample` writes of this volume, the same bytes, and its row of `images.csv`.

        Args:
            folder: where to; it is made if need be. What was sampled before of a volume of this id is replaced
            overlay: the slice with the largest mask, the mask drawn over it, too
            maps: standard deviation and entropy, too

        Returns:
            The mask's file, `ID.nii.gz`; of DICOM images there is also `ID.dcm`.

        Raises:
            InputError: the id cannot name files, a file in the way is not sampling's own, the folder holds masks of
                other weights or options, or the disk refuses.
        """
        slices, extras = list(self._slices.values()), Extras(overlay, maps)

        def write(ledger: Ledger, about: dict[str, Any]) -> Path:
            return write_case(ledger, self._case, self._dataset, slices, extras, False, about)

        return save(folder, self.id, self._settings, slices, write)
