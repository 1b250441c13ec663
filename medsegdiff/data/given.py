"""An image as Python gives it: a path, a Pillow image or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.scaling import EIGHT_BITS
from medsegdiff.data.source import read_source
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.arrays import from_array, from_pillow
from medsegdiff.io.pictures import read_image
from medsegdiff.io.volumes import is_volume

Picture = Union[str, Path, Image.Image, np.ndarray]


def as_rgb(image: Picture) -> np.ndarray:
    """What a person sees of it: uint8 (H, W, 3).

    Raises:
        InputError: it cannot be read, or is of another kind.
    """
    if isinstance(image, (str, Path)) and is_volume(Path(image)):
        raise InputError(f"{image}: is a volume; give it to `segment_volume`, or to `medsegdiff sample --images`")
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    raise InputError(f"image: a {type(image).__name__}; give a path, a Pillow image, a NumPy array, or a list of these")


def as_channels(image: Picture, rgb: np.ndarray, spec: DataSpec) -> np.ndarray:
    """What a network sees of it, (H, W, C), before scaling; `rgb` is what `as_rgb` made of it.

    Raises:
        InputError: the network wants other channels than it has.
    """
    if isinstance(image, (str, Path)):
        return read_source(Case("", (Path(image),)), spec).values[0]
    if spec.channels == 3:
        return rgb
    if spec.channels == 1 and spec.scaling == EIGHT_BITS:
        return np.array(Image.fromarray(rgb).convert("L"))[..., None]
    raise InputError(f"image: the network was trained with {spec.channels} channels, {spec.scaling}; give files")
