"""The package from Python: load a trained network and segment, train one, score predictions.

Importing this starts no Jittor; `load` and `train` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union, overload

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import digest
from medsegdiff.config.choices import Precision
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import Sampler, SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.entries import Form, to_input
from medsegdiff.data.given import Picture, as_channels, as_rgb
from medsegdiff.inference.backends import Backend, choose, load_denoiser
from medsegdiff.inference.denoiser import Denoiser
from medsegdiff.inference.results import read_run, settings
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import BatchSegmenter, OnStep
from medsegdiff.inference.volume_segmentation import VolumeSegmentation
from medsegdiff.io.labels import parse_labels
from medsegdiff.io.volumes import stem
from medsegdiff.masks.surface import Empty

if TYPE_CHECKING:
    from medsegdiff.evaluation.report import Report

PathLike = Union[str, Path]
P = TypeVar("P", bound=Picture)


def load(
    path: PathLike,
    *,
    weights: str = "ema",
    backend: Backend = "auto",
    precision: Precision = "fp32",
    trained_as: PathLike = "",
) -> Segmenter:
    """Load a trained network.

    Args:
        path: a training's folder (its newest checkpoint is taken), a checkpoint `step-NNNNNN`, a `.safetensors` file,
            a `.pt` or `.pkl` file of a published network, or "isic", which comes with the package: skin lesions
        weights: "ema", the averaged weights, or "model", the raw ones
        backend: what computes the network: "jittor", "onnx" (ONNX Runtime: no compiler), or "auto": Jittor where it is
            compiled, else ONNX Runtime
        precision: what the network computes in: "fp32", "bf16" or "fp16"
        trained_as: options that a `.pt` or `.pkl` file was trained with, as `train` takes them: a YAML file, or
            the name of one that comes with the package, "isic-published"

    Raises:
        InputError: nothing is there, it is damaged, or this machine lacks the precision.
    """
    from medsegdiff.checkpoints.load import load_any

    if weights not in ("ema", "model"):
        raise InputError(f"weights {weights!r}: must be 'ema' or 'model'")
    loaded = load_any(Path(path), weights, trained_as).weights
    denoiser = load_denoiser(loaded, choose(backend, precision), precision)
    return Segmenter(denoiser, loaded.config, precision, digest(Path(loaded.source)))


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
        same as `medsegdiff sample` writes.

        Args:
            image: a picture's path, a Pillow image, or an array: (H, W, 3) in RGB or grey (H, W), uint8 or floats in
                [0, 1]; or a list of these, of any sizes
            members: how many masks are sampled; "3..25": from 3 to 25, until their mean has settled
            steps: network evaluations a mask; None: 3, or 25 where the network predicts the noise
            seed: what the noise is drawn from
            id: the image's name, by which its files are named and its noise is drawn; by default that of its file
                without suffix, else empty. For a list: one name each
            sampler: "ddpm", "ddim", "dpm++" or "sde-dpm++"
            on_step: is told of every network evaluation: names and members of the masks at work, and their state; what
                it raises ends the sampling

        Raises:
            InputError: an image cannot be read, an option makes no sense, or the network predicts what is not finite.
        """
        sampling = SamplingConfig(sampler, steps, members=members, seed=seed, precision=self._precision)
        if not isinstance(image, (list, tuple)):
            return self._segment([image], [id], sampling, on_step)[0]
        ids = [id] * len(image) if id == "" else list(id)
        if isinstance(id, str) != (id == "") or len(ids) != len(image):
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
            slices: numbers of the slices to segment, from 0; None: all. The others are background
            members: how many masks are sampled of each slice, see `segment`
            steps: network evaluations a mask
            seed: what the noise is drawn from
            id: the volume's name; by default that of its file without suffix
            sampler: "ddpm", "ddim", "dpm++" or "sde-dpm++"
            on_step: is told of every network evaluation
            cache_dir: where resized slices are kept; None: the user's cache

        Raises:
            InputError: a file cannot be read or does not fit the network, there is no such slice, it is blank, an
                option makes no sense, or the network predicts what is not finite.
        """
        spec, data = self.config.spec, self.config.data
        paths = tuple(map(Path, [files] if isinstance(files, (str, Path)) else files))
        case = Case(id or stem(paths[0]), paths)
        sampling = SamplingConfig(sampler, steps, members=members, seed=seed, precision=self._precision)
        batches = BatchSegmenter(self._denoiser, self.config.diffusion, sampling)
        dataset = prepare(
            [case], self._denoiser.mask_shape[-1], Path(cache_dir) if cache_dir else None, progress=False,
            num_classes=self.config.network.num_classes, spec=spec, skip_blank=data.skip_blank,
        )  # fmt: skip
        places = {number: index for index, (_, number) in enumerate(dataset.slices)}
        for number in slices or ():
            if number not in places:
                known = f"is blank, or not one of 0 to {dataset.depth(0) - 1}; choose another"
                raise InputError(f"slices: slice {number} of {case.image.name} {known}")
        chosen = [places[number] for number in (places if slices is None else slices)]
        found = batches.segment(dataset.ids, dataset.image, on_step=on_step, chosen=chosen)
        return VolumeSegmentation(case, dataset, list(found), settings(batches.sampling, self._weights))

    def _segment(
        self, images: Sequence[Picture], ids: Sequence[Any], sampling: SamplingConfig, on_step: Optional[OnStep]
    ) -> list[Segmentation]:
        batches = BatchSegmenter(self._denoiser, self.config.diffusion, sampling)
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
    if not isinstance(id, str):
        raise InputError(f"id {id!r}: must be a text")
    return id or (Path(image).stem if isinstance(image, (str, Path)) else "")


def train(config: Union[RunConfig, PathLike], **options: Any) -> Path:
    """Train, or continue a training, as `medsegdiff train` does; returns the last checkpoint's folder.

    Args:
        config: a configuration, a YAML file of options, or the name of one that comes with the package, "isic-small"
        options: what overrides it, by the names of `medsegdiff train --help` with underscores: `data_dir`, `out_dir`,
            `steps`, `image_size`, ...

    Raises:
        InputError: an option is unknown or makes no sense, the data cannot be used, or `out_dir` holds another
            configuration's training.
        Interrupted: (`training.interruption`) Ctrl-C or a signal came; a checkpoint was written, and the same call
            continues.
    """
    from medsegdiff.app.train import read_options
    from medsegdiff.training.images import find_images, open_images

    images = find_images(read_options(config, options))
    dataset, held_out = open_images(images)

    from medsegdiff.training.loop import train as run_training

    return run_training(images.config, dataset, held_out, images.about)


def evaluate(
    predictions: PathLike,
    ground_truth: Union[PathLike, Mapping[str, PathLike], None] = None,
    *,
    data_dir: Optional[PathLike] = None,
    protocol: str = "ours",
    protocol_size: Optional[int] = None,
    num_classes: int = 2,
    labels: str = "",
    empty: Empty = "one",
    tolerance: float = 1.0,
    seed: int = 0,
) -> Report:
    """Score predictions against ground truth, as `medsegdiff evaluate` does.

    Args:
        predictions: the folder that `medsegdiff sample` or `Segmentation.save` wrote
        ground_truth: folder of masks `ID.png` or `ID_Segmentation.png`, or their files by id
        data_dir: or a dataset's folder, whose test masks are taken
        protocol: how probabilities are compared at thresholds: "ours", "original" or "jittor"
        protocol_size: side of the square, in pixels, where they are compared; None: the protocol's own
        num_classes: classes, background included; above 2 masks hold class indices; by default as in training
        labels: values of the ground truth that are classes, as "1,2,4" or "1:1,2:1,4:2"; by default as in training
        empty: what counts where prediction and ground truth are both empty: "skip" nothing, "one" the best value,
            "zero" the worst
        tolerance: of the surface Dice, in millimetres of volumes, else in pixels
        seed: what the bootstrap is drawn from

    Returns:
        The report: `.summaries["dice"].mean`, each image's metrics in `.scores`; `.write(folder)` writes the files.

    Raises:
        InputError: there is no ground truth or no prediction for any of it, or a file cannot be read.
    """
    from medsegdiff.evaluation.evaluate import evaluate as score
    from medsegdiff.evaluation.metrics import Rules
    from medsegdiff.evaluation.truth import truth_from_folder

    run = read_run(Path(predictions))
    patients: dict[str, str] = {}
    if data_dir is not None and ground_truth is None:
        from medsegdiff.app.evaluate import truth_of_dataset

        truth, patients = truth_of_dataset(Path(data_dir), kept=run.kept)
    elif data_dir is not None or ground_truth is None:
        raise InputError("ground_truth, data_dir: give one of them")
    elif isinstance(ground_truth, Mapping):
        truth = {id: Path(path) for id, path in ground_truth.items()}
    else:
        truth = truth_from_folder(Path(ground_truth))
    num_classes = run.num_classes if num_classes == 2 else num_classes
    rules, given = Rules(empty, tolerance), parse_labels(labels or run.labels)
    return score(Path(predictions), truth, None, protocol_size, "", seed, num_classes, protocol, rules, given, patients)
