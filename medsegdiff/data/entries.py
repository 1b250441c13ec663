"""What the cache keeps of one case: a file with its slices at network resolution, checked when it is opened."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from medsegdiff.base.files import replacing
from medsegdiff.data.cases import Case
from medsegdiff.data.scaling import EIGHT_BITS, scale, to_sixteen_bits
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.labels import format_labels

RESIZE = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
IMAGES, MASKS, _ABOUT = "images", "masks", "about"


@dataclass(frozen=True)
class Form:
    """What arrays are made of a case's files."""

    size: int
    num_classes: int
    mask_resize: Optional[str]
    """"bilinear" or "nearest"; None: masks are not kept."""
    spec: DataSpec

    def key(self, sources: Sequence[str]) -> list[Any]:
        """What decides the arrays of a case besides its place: all this, and digests of its files."""
        spec = self.spec
        known = [self.size, self.num_classes, self.mask_resize, spec.scaling, spec.channels, spec.axis]
        return [*known, format_labels(spec.labels), *sources]

    def image(self, slices: np.ndarray) -> np.ndarray:
        """A case's images (D, H, W, C) as uint8 or uint16 (D, S, S, C), with Pillow's antialiased bilinear filter."""
        plain = self.spec.scaling == EIGHT_BITS
        values = slices.astype(np.uint8, copy=False) if plain else scale(slices, self.spec.scaling)
        if plain and values.shape[-1] == 3:  # else channel by channel, which is what Pillow knows
            return self._resized(values, "bilinear")
        found = np.stack([self._resized(layer, "bilinear") for layer in np.moveaxis(values, -1, 0)], axis=-1)
        return found if plain else to_sixteen_bits(np.clip(found, 0, 1))

    def mask(self, classes: np.ndarray) -> np.ndarray:
        """A case's masks, uint8 (D, H, W) of class indices, at network resolution (D, S, S).

        Two classes are resized as 0 and 255, and 1 wherever the result is above 0, as published; more classes by the
        nearest pixel, as there is no class between two others.
        """
        how = str(self.mask_resize)
        if self.num_classes > 2:
            return self._resized(classes, how)
        return (self._resized(classes * np.uint8(255), how) > 0).astype(np.uint8)

    def _resized(self, arrays: np.ndarray, how: str) -> np.ndarray:
        images = (Image.fromarray(np.ascontiguousarray(array)) for array in arrays)
        return np.stack([np.asarray(image.resize((self.size, self.size), RESIZE[how])) for image in images])


class About(NamedTuple):
    """What an entry says of its slices."""

    height: int
    width: int
    blank: list[bool]
    """Whether a slice holds one value alone."""
    shares: list[list[float]]
    """Of each slice the share of each foreground class, at network resolution; empty without masks."""
    corners: list[bool]
    """Whether all four corners are foreground."""


class Entry:
    """An entry; what its arrays hold is checked when the first slice is read.

    Every method, and opening, raises a `ValueError` where the entry is absent, damaged or of another form.
    """

    def __init__(self, path: Path, form: Form) -> None:
        with _reading(path) as file:
            text, own_sum, self._sum = json.loads((file.metadata() or {})[_ABOUT])
            if own_sum != zlib.crc32(text.encode(), self._sum):
                raise ValueError("its checksum differs")
            self.about = About(**json.loads(text))
            count = len(self.about.blank)
            wanted = {IMAGES: [count, form.size, form.size, form.spec.channels]}
            wanted.update({MASKS: [count, form.size, form.size]} if form.mask_resize else {})
            if {name: file.get_slice(name).get_shape() for name in file.keys()} != wanted:  # noqa: SIM118 (no mapping)
                raise ValueError("it is of another shape")
        self.path, self._checked = path, False

    def __len__(self) -> int:
        return len(self.about.blank)

    def read(self, name: str, place: int) -> np.ndarray:
        """A slice of the `IMAGES`, uint8 or uint16 (S, S, C), or of the `MASKS`, uint8 (S, S) of class indices."""
        with _reading(self.path) as file:  # mapped: it reads this slice alone
            if not self._checked:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                if self._sum != _checksum(arrays):
                    raise ValueError("its checksum differs")
                self._checked = True
            return file.get_slice(name)[place]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except Exception as error:  # of a damaged header it raises nearly anything
        raise ValueError(f"{path}: {error}") from error


def to_input(pixels: np.ndarray) -> np.ndarray:
    """Uint8 or uint16 (S, S, C), 255 or 65535 being 1, as float32 (C, S, S) in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def build(path: Path, case: Case, form: Form) -> None:
    """Make the entry of a case at `path`.

    Raises:
        InputError: a file cannot be read, or the disk refuses.
    """
    source = read_source(case, form.spec)
    blank = [_is_blank(values) for values in source.values]
    arrays = {IMAGES: form.image(source.values)}
    shares, corners = [], []
    if form.mask_resize:
        masks = arrays[MASKS] = form.mask(read_classes(case, form.spec, form.num_classes, source))
        counts = [np.bincount(mask.ravel(), minlength=form.num_classes)[1:] for mask in masks]
        shares = (np.array(counts) / masks[0].size).tolist()
        corners = (masks[:, [0, 0, -1, -1], [0, -1, 0, -1]] > 0).all(axis=1).tolist()
    about = json.dumps(About(*source.values.shape[1:3], blank, shares, corners)._asdict())
    whole = _checksum(arrays)
    with replacing(path) as beside:
        beside.write_bytes(save(arrays, {_ABOUT: json.dumps([about, zlib.crc32(about.encode(), whole), whole])}))


def _is_blank(values: np.ndarray) -> bool:
    """Whether each channel of (H, W, C) has one value only; row by row, as the first ones usually decide."""
    return all((row == values[0, 0]).all() for row in values)


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(np.ascontiguousarray(arrays[name]), zlib.crc32(repr(arrays[name].dtype).encode(), found))
    return found
