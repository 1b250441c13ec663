"""A trained network that segments what Python gives it: pictures, in files or in memory, and volumes."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar, Union, overload

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import check_name, composed, path_of
from medsegdiff.config.choices import Precision
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import Sampler, SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case, by_channel
from medsegdiff.data.entries import Form, to_input
from medsegdiff.data.given import Picture, as_channels, as_rgb
from medsegdiff.inference.denoiser import Denoiser
from medsegdiff.inference.results import settings
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import BatchSegmenter, OnStep
from medsegdiff.inference.volume_segmentation import VolumeSegmentation
from medsegdiff.io.pictures import is_picture
from medsegdiff.io.volumes import stem

PathLike = Union[str, Path]
P = TypeVar("P", bound=Picture)


class Segmenter:
    """A trained network that segments images; `load` makes one."""

    def __init__(self, denoiser: Denoiser, config: RunConfig, precision: Precision = "fp32", weights: str = "") -> None:
        self._denoiser, self._precision = denoiser, precision
        self._weights = weights  # a digest
        self.config = config
        """Of the training that the weights come from."""

    def __repr__(self) -> str:
        classes, size, _ = self._denoiser.mask_shape
        return f"Segmenter({classes} class{'es' * (classes > 1)}, {size} x {size} pixels, {self._precision})"

    @overload
    def segment(
        self,
        image: Picture,
        *,
        members: Union[int, str] = 5,
        steps: Optional[int] = None,
        seed: int = 0,
        id: str = "",
        sampler: Sampler = "ddpm",
        on_step: Optional[OnStep] = None,
    ) -> Segmentation: ...

    @overload
    def segment(
        self,
        image: Union[list[P], tuple[P, ...]],
        *,
        members: Union[int, str] = 5,
        steps: Optional[int] = None,
        seed: int = 0,
        id: Union[str, Sequence[str]] = "",
        sampler: Sampler = "ddpm",
        on_step: Optional[OnStep] = None,
    ) -> list[Segmentation]: ...

    def segment(
        self,
        image: Union[Picture, list[P], tuple[P, ...]],
        *,
        members: Union[int, str] = 5,
        steps: Optional[int] = None,
        seed: int = 0,
        id: Union[str, Sequence[str]] = "",
        sampler: Sampler = "ddpm",
        on_step: Optional[OnStep] = None,
    ) -> Union[Segmentation, list[Segmentation]]:
        """Segment one image, or a list of images, whose masks are sampled in common batches.

        A mask depends on the image, `seed`, `id` and the weights alone: in a list it is the same as alone, and the
        same as `medsegdiff sample` writes for this name.

        Args:
            image: a picture's path, a Pillow image, or an array: (H, W, 3) in RGB or grey (H, W), uint8 or floats in
                [0, 1]; or a list of these, of any sizes
            members: how many masks are sampled; "3..25": from 3 to 25, until their mean has settled
            steps: network evaluations a mask; None: 3, or 25 where the network predicts the noise
            seed: what the noise is drawn from
            id: the image's name, by which its files are named and its noise is drawn; by default that of its file
                without suffix, else empty. For a list: one name each. Images of one name have the same noise, those
                without a name, too; of files of one name in several folders `medsegdiff sample` makes the names
                distinct by those of the folders, as p1_001 of p1/001.png
            sampler: "ddpm", "ddim", "dpm++" or "sde-dpm++"
            on_step: is told of every network evaluation: names and members of the masks at work, and their state; what
                it raises ends the sampling

        Raises:
            InputError: an image cannot be read, an option makes no sense, or the network predicts what is not finite.
        """
        sampling = SamplingConfig(sampler, steps, members=members, seed=seed, precision=self._precision)
        if not isinstance(image, (list, tuple)):
            return self._segment([image], [id], sampling, on_step)[0]
        # A column of a table, too; a set has no order.
        listed = isinstance(id, (list, tuple)) or (hasattr(id, "__array__") and np.ndim(id) > 0)
        ids: list[Any] = list(id) if listed else [id] * len(image)
        if (not listed and id != "") or len(ids) != len(image):
            raise InputError(f"id: give one name for each of the {len(image)} images, in a list")
        return self._segment(image, ids, sampling, on_step)

    def segment_volume(
        self,
        files: Union[PathLike, Sequence[PathLike]],
        *,
        slices: Optional[Sequence[int]] = None,
        members: Union[int, str] = 5,
        steps: Optional[int] = None,
        seed: int = 0,
        id: str = "",
        sampler: Sampler = "ddpm",
        on_step: Optional[OnStep] = None,
        cache_dir: Optional[PathLike] = None,
    ) -> VolumeSegmentation:
        """Segment a volume slice by slice, as `medsegdiff sample --images` does.

        Args:
            files: a NIfTI file, a DICOM file or the folder of a series, or one file for each channel
            slices: numbers of the slices to segment, from 0, in a list; None: all. The others are background
            members: how many masks are sampled of each slice, see `segment`
            steps: network evaluations a mask
            seed: what the noise is drawn from
            id: the volume's name; by default that of its file without suffix and, of several, the channel's number
            sampler: "ddpm", "ddim", "dpm++" or "sde-dpm++"
            on_step: is told of every network evaluation
            cache_dir: where resized slices are kept; None: the user's cache

        Raises:
            InputError: a file cannot be read or does not fit the network, there is no such slice, it is blank, an
                option makes no sense, or the network predicts what is not finite.
        """
        paths, wanted = _paths(files), None if slices is None else _numbers(slices)
        if not paths or wanted == []:
            raise InputError(f"{'slices' if paths else 'files'}: none given; give one or more")
        if is_picture(paths[0]):
            raise InputError(f"{paths[0]}: is a picture; give it to `segment`")
        spec = self.config.spec
        channels = by_channel(paths) if spec.channels > 1 and not spec.colour else None
        case = Case(_checked(id) or composed(stem(next(iter(channels or paths)))), paths)
        sampling = SamplingConfig(sampler, steps, members=members, seed=seed, precision=self._precision)
        batches = BatchSegmenter(self._denoiser, self.config.diffusion, sampling)
        form = {**self.config.preparation, "size": self._denoiser.mask_shape[-1]}
        cache = None if cache_dir is None else path_of(cache_dir, "cache_dir")
        dataset = prepare([case], cache_dir=cache, progress=False, **form)
        places = {number: index for index, (_, number) in enumerate(dataset.slices)}
        for number in wanted or ():
            if number not in places:
                known = f"is blank, or not one of 0 to {dataset.depth(0) - 1}; choose another"
                raise InputError(f"slices: slice {number} of {case.image.name} {known}")
        chosen = [places[number] for number in (places if wanted is None else wanted)]
        found = batches.segment(dataset.ids, dataset.image, on_step=on_step, chosen=chosen)
        return VolumeSegmentation(case, dataset, list(found), settings(batches.sampling, self._weights))

    def _segment(
        self, images: Sequence[Picture], ids: Sequence[Any], sampling: SamplingConfig, on_step: Optional[OnStep]
    ) -> list[Segmentation]:
        batches = BatchSegmenter(self._denoiser, self.config.diffusion, sampling)
        images = [path_of(image, "image") if isinstance(image, (str, Path)) else image for image in images]
        names = [_name(image, id) for image, id in zip(images, ids)]
        pictures, spec = [as_rgb(image) for image in images], self.config.spec
        form = Form(self._denoiser.mask_shape[-1], 2, None, spec)

        def prepared(place: int) -> np.ndarray:
            return to_input(form.image(as_channels(images[place], pictures[place], spec)[None])[0])

        results = batches.segment(names, prepared, True, on_step)
        used = settings(batches.sampling, self._weights)
        found = {result.index: Segmentation(pictures[result.index], result, used) for result in results}
        return [found[index] for index in range(len(images))]


def _name(image: Picture, id: str) -> str:
    return _checked(id) or (_checked(composed(image.stem)) if isinstance(image, Path) else "")


def _checked(id: str) -> str:
    if not isinstance(id, str):
        raise InputError(f"id {id!r}: must be a text")
    check_name(Path(id))
    return id


def _paths(files: Union[PathLike, Sequence[PathLike]]) -> tuple[Path, ...]:
    try:
        return tuple(path_of(path, "files") for path in ([files] if isinstance(files, (str, os.PathLike)) else files))
    except TypeError:
        raise InputError(f"files: a {type(files).__name__}; give a path, or a list of paths") from None


def _numbers(slices: Sequence[int]) -> list[int]:
    """Each once."""
    try:
        given = list(slices)
        if not {bool, np.bool_} & set(map(type, given)):  # which would pass for 0 and 1
            return list(dict.fromkeys(map(operator.index, given)))
    except TypeError:
        pass
    raise InputError(f"slices {str(slices)[:40]}: must be whole numbers, in a list")
