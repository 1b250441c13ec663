"""The package from Python: load a trained network and segment, train one, score predictions.

Importing this starts no Jittor; `load` and `train` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from medsegdiff.base.bounds import check_choice
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import digest
from medsegdiff.base.reading import path_of
from medsegdiff.config.choices import Precision
from medsegdiff.config.run import RunConfig
from medsegdiff.inference.backends import Backend, choose, load_denoiser
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.trained import Segmenter
from medsegdiff.inference.volume_segmentation import VolumeSegmentation
from medsegdiff.masks.protocols import ProtocolName
from medsegdiff.masks.surface import Empty

__all__ = ["Segmentation", "Segmenter", "VolumeSegmentation", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from medsegdiff.evaluation.report import Report

PathLike = Union[str, Path]


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
        backend: what computes the network: "jittor", "onnx" (ONNX Runtime: no compiler), "openvino", or "auto": Jittor
            where it is compiled, else ONNX Runtime
        precision: what the network computes in: "fp32", "bf16" or "fp16"
        trained_as: options that a `.pt` or `.pkl` file was trained with, as `train` takes them: a YAML file, or
            the name of one that comes with the package, "isic-published"

    Raises:
        InputError: nothing is there, it is damaged, or this machine lacks the precision.
    """
    from medsegdiff.checkpoints.load import load_any

    check_choice("weights", weights, ("ema", "model"))
    options = trained_as or "" if isinstance(trained_as, (str, type(None))) else path_of(trained_as, "trained_as")
    loaded = load_any(path_of(path, "path"), weights, options).weights
    used = digest(Path(loaded.source))  # before anything takes long: a training removes old checkpoints
    denoiser = load_denoiser(loaded, choose(backend, precision), precision)
    return Segmenter(denoiser, loaded.config, precision, used)


def train(config: Union[RunConfig, PathLike], **options: Any) -> Path:
    """Train, or continue a training, as `medsegdiff train` does; returns the last checkpoint's folder.

    Args:
        config: a configuration, a YAML file of options, or the name of one that comes with the package, "isic-small"
        options: what overrides it, by the names of `medsegdiff train --help` with underscores: `data_dir`, `out_dir`,
            `steps`, `image_size`, ...

    Raises:
        InputError: an option is unknown or makes no sense, the data cannot be used, `out_dir` holds another
            configuration's training, or Jittor does not run here.
        Interrupted: (`training.interruption`) Ctrl-C or a signal came; a checkpoint was written, and the same call
            continues.
    """
    from medsegdiff.app.train import read_options
    from medsegdiff.runtime import requirements
    from medsegdiff.training.images import find_images, open_images

    config = read_options(config if isinstance(config, RunConfig) else path_of(config, "config"), options)
    requirements.check()  # before anything takes long
    images = find_images(config)
    dataset, held_out = open_images(images)

    from medsegdiff.training.loop import train as run_training

    return run_training(images.config, dataset, held_out, images.about)


def evaluate(
    predictions: PathLike,
    ground_truth: Union[PathLike, Mapping[str, PathLike], None] = None,
    *,
    data_dir: Optional[PathLike] = None,
    protocol: ProtocolName = "ours",
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
    from medsegdiff.app.evaluate import comparison
    from medsegdiff.evaluation.evaluate import evaluate as score
    from medsegdiff.evaluation.metrics import Rules

    if (data_dir is None) == (ground_truth is None):
        raise InputError("ground_truth, data_dir: give one of them")
    if not isinstance(labels, str):
        raise InputError(f'labels {labels!r}: must be a text, as "1,2,4"')
    rules = Rules(protocol, protocol_size, num_classes, empty, tolerance, seed)
    folder = None if data_dir is None else path_of(data_dir, "data_dir")
    truth: Union[Path, dict[str, Path]] = Path()
    if isinstance(ground_truth, Mapping):
        if not all(isinstance(id, str) for id in ground_truth):
            raise InputError("ground_truth: an id is no text; give files by the names of the images")
        truth = {id: path_of(path, "ground_truth") for id, path in ground_truth.items()}
    elif ground_truth is not None:
        truth = path_of(ground_truth, "ground_truth")
    found = path_of(predictions, "predictions")
    return score(found, **comparison(found, truth, folder, labels, rules))
