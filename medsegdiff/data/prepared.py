"""A dataset at network resolution; the cache keeps one entry for each case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Callable

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.entries import IMAGES, MASKS, Entry, Form, to_input
from medsegdiff.io.volumes import is_volume


class Prepared:
    """A dataset at network resolution, slice by slice; a picture is one slice."""

    def __init__(
        self,
        cases: Sequence[Case],
        paths: Sequence[Path],
        form: Form,
        fingerprint: str,
        skip_blank: bool,
        make: Callable[[Path, Case], None],
    ) -> None:
        """Open the entries `paths` of the cases; `make` makes one anew that is damaged or gone.

        Raises:
            InputError: a case has no slice that is not blank, or an entry cannot be made anew.
        """
        self.cases, self.form, self.fingerprint = list(cases), form, fingerprint
        self._paths, self._make = list(paths), make
        self._entries: dict[int, Entry] = {}
        self.slices: list[tuple[int, int]] = []
        """Of each slice the case, by its place in `cases`, and its own place there."""
        self.ids: list[str] = []
        """Of a picture the case's, of a slice `ID:NUMBER`."""
        for place, case in enumerate(self.cases):
            blank = self._entry(place).about.blank
            chosen = [number for number, empty in enumerate(blank) if not (skip_blank and empty)]
            self.slices += [(place, number) for number in chosen]
            self.ids += [f"{case.id}:{number}" for number in chosen] if is_volume(case.image) else [case.id]
            if not chosen:
                raise InputError(f"{case.image}: all slices are blank; look at it, or leave out `skip_blank`")

    def __len__(self) -> int:
        return len(self.slices)

    @cached_property
    def groups(self) -> list[str]:
        """The patient of each slice."""
        return [self.cases[place].group for place, _ in self.slices]

    @property
    def num_classes(self) -> int:
        """Classes, background included."""
        return self.form.num_classes

    @property
    def has_masks(self) -> bool:
        """Whether each case has one."""
        return self.form.mask_resize is not None

    @cached_property
    def original_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each slice in its file, in pixels."""
        return [(about.height, about.width) for about in (self._entry(place).about for place, _ in self.slices)]

    @cached_property
    def by_case(self) -> list[list[int]]:
        """The slices of each case, by their places here."""
        found: list[list[int]] = [[] for _ in self.cases]
        for index, (place, _) in enumerate(self.slices):
            found[place].append(index)
        return found

    def depth(self, case: int) -> int:
        """How many slices a case has, blank ones too."""
        return len(self._entry(case))

    @property
    def shares(self) -> np.ndarray:
        """The share of each foreground class in each mask, float64 (N, num_classes - 1)."""
        return np.array([self._entry(place).about.shares[number] for place, number in self.slices])

    @property
    def corners(self) -> np.ndarray:
        """Whether all four corners of each mask are foreground, bool (N,)."""
        return np.array([self._entry(place).about.corners[number] for place, number in self.slices])

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (C, S, S) in [0, 1].

        Raises:
            InputError: what is cached is damaged, and the files that it was made of have changed.
        """
        return to_input(self._read(index, IMAGES))

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (num_classes - 1, S, S) of {0, 1}: a channel for each class but the background.

        Raises:
            InputError: as `image`.
            ValueError: the dataset has no masks.
        """
        if not self.has_masks:
            raise ValueError("this dataset has no masks")
        mask = self._read(index, MASKS)
        return (mask == np.arange(1, self.num_classes)[:, None, None]).astype(np.float32)

    def _read(self, index: int, name: str) -> np.ndarray:
        place, number = self.slices[index]
        try:
            return self._entry(place).read(name, number)
        except ValueError:
            return self._made_anew(place).read(name, number)

    def _entry(self, place: int) -> Entry:
        if place not in self._entries:
            try:
                self._entries[place] = Entry(self._paths[place], self.form)
            except ValueError:
                return self._made_anew(place)
        return self._entries[place]

    def _made_anew(self, place: int) -> Entry:
        self._make(self._paths[place], self.cases[place])
        self._entries[place] = Entry(self._paths[place], self.form)
        return self._entries[place]
