"""The metrics of one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.predictions import Prediction
from medsegdiff.evaluation.truth import Truth, read_classes
from medsegdiff.io.ensembles import IMAGES, ImageRow
from medsegdiff.io.masks import read_mask
from medsegdiff.io.predictions import read_probability
from medsegdiff.masks.decision import THRESHOLD, decide
from medsegdiff.masks.metrics import Overlap, overlap
from medsegdiff.masks.protocols import Protocol
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.masks.uncertainty import PackedMasks, brier, calibration_histogram, generalised_energy_distance

COMPARED = ("dice", "iou", "published_dice", "published_iou")
"""The metrics that the conditioning network, single members and the ensemble are compared by."""


@dataclass(frozen=True)
class Score:
    """One image's metrics and the prediction file they come from.

    Always there are "published_iou", "published_dice", "dice", "iou", "precision" and "recall", with more
    than two classes the last four with "_class1", ... appended, too, of the classes that occur. Where files allow:
    "brier", "ged", "agreement", "empty_members" (the share of members without any foreground), and those of `COMPARED`
    after "cal_" and, their mean over the members, after "member_".
    """

    id: str
    prediction: Path
    metrics: dict[str, float]
    calibration: Optional[np.ndarray] = None
    """Where there is a probability: `calibration_histogram` of each foreground class, float64 (classes, 3, bins)."""
    truth: Optional[Path] = None
    """The file of the ground truth."""


class _Target(NamedTuple):
    """What predictions of one foreground class are compared with."""

    mask: np.ndarray  # bool (H, W)
    square: np.ndarray  # float32, see `Protocol.target`


def measure(
    id: str, prediction: Prediction, truth: Truth, protocol: Protocol, ensemble: Optional[ImageRow] = None
) -> Score:
    """Compare all files of an image's prediction with its truth, one member after another.

    With more than two classes, each foreground class is a binary problem of its own, and metrics are means
    over those that occur in the mask or the ground truth (over all, where neither has any).

    Args:
        id: the image's.
        prediction: its files.
        truth: its mask.
        protocol: how the probability is compared.
        ensemble: what the sampler says of the members, if it does.

    Raises:
        InputError: a file cannot be read, differs from the truth in size, or a member is missing.
    """
    targets = {
        label: _Target(truth.mask(label), protocol.target(truth.soft(label))) for label in range(1, truth.num_classes)
    }
    metrics, calibration = _fused(prediction, truth, targets, protocol)
    if prediction.cal:
        layers = _read(prediction.cal, truth)
        metrics.update(_named("cal", _compared(layers, targets, protocol)))
    metrics.update(_members(prediction, truth, targets, protocol, ensemble))
    if ensemble and ensemble.agreement is not None:
        metrics["agreement"] = ensemble.agreement
        metrics["empty_members"] = ensemble.empty / ensemble.members
    return Score(id, prediction.path, metrics, calibration, truth.path)


def _fused(
    prediction: Prediction, truth: Truth, targets: dict[int, _Target], protocol: Protocol
) -> tuple[dict[str, float], Optional[np.ndarray]]:
    """The metrics of the mask and of its probability, and the histograms where there is a probability."""
    labels = _read_labels(prediction, truth)
    occurring = _occurring(labels, targets)
    overlaps = {label: overlap(labels == label, targets[label].mask) for label in occurring or targets}
    published, briers, histograms = [], [], []
    for (label, target), layer in zip(targets.items(), _fused_layers(prediction, truth, labels)):
        if label in overlaps:
            published.append(protocol.iou_dice(layer, target.square))
        if prediction.probability or prediction.is_published:
            probability = layer if layer.shape == truth.shape else resize_probability(layer, truth.shape)
            briers.append(brier(probability, target.mask))
            histograms.append(calibration_histogram(probability, target.mask))

    metrics = {**_published(published), **_mean(overlaps.values())}
    if len(targets) > 1:
        for label in occurring:
            metrics.update({f"{name}_class{label}": value for name, value in overlaps[label]._asdict().items()})
    if briers:
        metrics["brier"] = float(np.mean(briers))
    return metrics, np.array(histograms) if histograms else None


def _read_labels(prediction: Prediction, truth: Truth) -> np.ndarray:
    """The mask as class indices, (H, W)."""
    if prediction.is_published:
        return resize_probability(read_probability(prediction.path), truth.shape) > THRESHOLD
    if truth.num_classes > 2:
        labels = read_classes(prediction.path, truth.num_classes)
    else:
        labels = read_mask(prediction.path) > THRESHOLD
    _check_size(labels, prediction.path, truth)
    return labels


def _fused_layers(prediction: Prediction, truth: Truth, labels: np.ndarray) -> Iterator[np.ndarray]:
    """The probability of each foreground class, or where there is none the mask, float32 (H, W)."""
    if prediction.probability:
        yield from _read(prediction.probability, truth)
    elif truth.num_classes == 2:
        yield read_probability(prediction.path) if prediction.is_published else read_mask(prediction.path)
    else:
        yield from ((labels == label).astype(np.float32) for label in range(1, truth.num_classes))


def _members(
    prediction: Prediction,
    truth: Truth,
    targets: dict[int, _Target],
    protocol: Protocol,
    ensemble: Optional[ImageRow],
) -> dict[str, float]:
    files = prediction.members
    if not files:
        return {}
    if ensemble and ensemble.members != len(files):
        raise InputError(
            f"{prediction.path}: has {len(files)} member files, but {IMAGES} says {ensemble.members}; "
            "sample again into an empty folder"
        )
    masks = {label: PackedMasks() for label in targets}
    scores = [_compared(_read(paths, truth), targets, protocol, masks) for paths in files]
    occurring = [label for label in targets if targets[label].mask.any() or any(map(np.any, masks[label].bits))]
    distances = [generalised_energy_distance(masks[label], targets[label].mask) for label in occurring or targets]
    mean = {key: float(np.mean([score[key] for score in scores])) for key in COMPARED}
    return {"ged": float(np.mean(distances)), **_named("member", mean)}


def _compared(
    layers: Iterable[np.ndarray],
    targets: dict[int, _Target],
    protocol: Protocol,
    masks: Optional[dict[int, PackedMasks]] = None,
) -> dict[str, float]:
    """The metrics of `COMPARED` for the probability of each foreground class, (H, W) each.

    The mask of each class is added to `masks`.
    """
    probability = np.stack(list(layers))
    labels = decide(probability)
    occurring = _occurring(labels, targets) or list(targets)
    published = [protocol.iou_dice(probability[label - 1], targets[label].square) for label in occurring]
    overlaps = [overlap(labels == label, targets[label].mask) for label in occurring]
    for label in masks or ():
        masks[label].add(labels == label)
    values = {**_published(published), **_mean(overlaps)}
    return {key: values[key] for key in COMPARED}


def _occurring(labels: np.ndarray, targets: dict[int, _Target]) -> list[int]:
    """The foreground classes that the mask or the ground truth has; others would count as perfect."""
    return [label for label in targets if targets[label].mask.any() or (labels == label).any()]


def _published(iou_dice: Sequence[tuple[float, float]]) -> dict[str, float]:
    iou, dice = np.mean(iou_dice, axis=0)
    return {"published_iou": float(iou), "published_dice": float(dice)}


def _mean(overlaps: Iterable[Overlap]) -> dict[str, float]:
    return dict(zip(Overlap._fields, map(float, np.mean(list(overlaps), axis=0))))


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in metrics.items()}


def _read(paths: Sequence[Path], truth: Truth) -> Iterator[np.ndarray]:
    for path in paths:
        layer = read_probability(path)
        _check_size(layer, path, truth)
        yield layer


def _check_size(array: np.ndarray, path: Path, truth: Truth) -> None:
    if array.shape != truth.shape:
        (height, width), (true_height, true_width) = array.shape, truth.shape
        raise InputError(
            f"{path}: is {width} x {height} pixels, but its ground truth {truth.path} is "
            f"{true_width} x {true_height}; write predictions at the original resolution"
        )
