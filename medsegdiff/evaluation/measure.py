"""The metrics of one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.metrics import COMPARED, METRICS, USUAL, Part, Rules, Target
from medsegdiff.evaluation.predictions import Prediction
from medsegdiff.evaluation.truth import Truth, check_grid, read_classes, read_volume_classes
from medsegdiff.io.ensembles import IMAGES, ImageRow
from medsegdiff.io.masks import read_mask
from medsegdiff.io.predictions import read_probability
from medsegdiff.io.volumes import geometry_of, is_volume
from medsegdiff.masks.decision import THRESHOLD, decide
from medsegdiff.masks.protocols import Protocol
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.masks.uncertainty import PackedMasks, calibration_histogram


@dataclass(frozen=True)
class Score:
    """One image's metrics and the prediction file they come from.

    By the names of `metrics.METRICS`, as far as files allow; of more than two classes also with "_class1", ...
    appended, of the classes that occur. Those of `COMPARED` also after "cal_" and, their mean over the members, after
    "member_".
    """

    id: str
    prediction: Path
    metrics: dict[str, float]
    calibration: Optional[np.ndarray] = None
    """Where there is a probability: `calibration_histogram` of each foreground class, float64 (classes, 3, bins)."""
    unit: str = "pixels"
    """Of distances; "mm" where pixels have a size."""
    truth: Optional[Path] = None
    """The file of the ground truth."""


def measure(
    id: str,
    prediction: Prediction,
    truth: Truth,
    protocol: Protocol,
    ensemble: Optional[ImageRow] = None,
    rules: Rules = USUAL,
) -> Score:
    """Compare all files of an image's prediction with its ground truth, one member after another.

    With more than two classes, each foreground class is a binary problem of its own, and metrics are means
    over those that occur in the mask or the ground truth (over all, where neither has any). The probability is compared
    by the `protocol`, masks by the `rules`; `ensemble` is what the sampler says of the members, if it does.

    Raises:
        InputError: a file cannot be read, differs from the ground truth in size, or a member is missing.
    """
    targets = {
        label: Target(truth.mask(label), None if truth.geometry else protocol.target(truth.soft(label)))
        for label in range(1, truth.num_classes)
    }
    labels = _read_labels(prediction, truth)
    counted = {"mask": _occurring(labels, targets)}  # the classes that count, for each need that is met
    metrics: dict[str, float] = {}
    if prediction.cal:
        metrics.update(_named("cal", _compared(_read(prediction.cal, truth), targets, protocol, rules)))
    members: dict[int, PackedMasks] = {}
    if prediction.members:
        members, mean = _members(prediction, truth, targets, protocol, rules, ensemble)
        counted["members"] = [
            label for label in targets if targets[label].mask.any() or any(map(np.any, members[label].bits))
        ]
        metrics.update(_named("member", mean))
    if prediction.probability or prediction.is_published:
        counted["probability"] = list(targets)
    if ensemble and ensemble.agreement is not None:
        counted["ensemble"] = [1]  # it is of the image, not of a class

    values: dict[str, list[float]] = {}
    histograms = []
    for (label, target), layer in zip(targets.items(), _fused_layers(prediction, truth, labels)):
        part = Part(label, target, labels == label, layer, protocol, None, members.get(label), ensemble)
        part.spacing, part.rules = truth.spacing, rules
        if "probability" in counted:
            part.probability = layer if layer.shape == truth.shape else resize_probability(layer, truth.shape)
            histograms.append(calibration_histogram(part.probability, target.mask))
        for name, metric in METRICS.items():
            if metric.needs not in counted or label not in (counted[metric.needs] or targets):
                continue
            value = metric.function(part)
            if value is None:
                continue
            values.setdefault(name, []).append(value)
            if metric.by_class and len(targets) > 1 and label in counted[metric.needs]:
                metrics[f"{name}_class{label}"] = value
    metrics.update({name: float(np.mean(some)) for name, some in values.items()})
    unit = "mm" if truth.spacing else "pixels"
    return Score(id, prediction.path, metrics, np.array(histograms) if histograms else None, unit, truth.path)


def _read_labels(prediction: Prediction, truth: Truth) -> np.ndarray:
    """The mask as class indices, (H, W)."""
    if prediction.is_published:
        return resize_probability(read_probability(prediction.path), truth.shape) > THRESHOLD
    if is_volume(prediction.path):
        return read_volume_classes(prediction.path, truth)
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
    elif truth.num_classes == 2 and not truth.geometry:
        yield read_probability(prediction.path) if prediction.is_published else read_mask(prediction.path)
    else:
        yield from ((labels == label).astype(np.float32) for label in range(1, truth.num_classes))


def _members(
    prediction: Prediction,
    truth: Truth,
    targets: dict[int, Target],
    protocol: Protocol,
    rules: Rules,
    ensemble: Optional[ImageRow],
) -> tuple[dict[int, PackedMasks], dict[str, float]]:
    """The members' masks of each foreground class, and the means of their metrics of `COMPARED`."""
    files = prediction.members
    if ensemble and ensemble.members != len(files):
        raise InputError(
            f"{prediction.path}: has {len(files)} member files, but {IMAGES} says {ensemble.members}; "
            "sample again into an empty folder"
        )
    masks = {label: PackedMasks() for label in targets}
    scores = [_compared(_read(paths, truth), targets, protocol, rules, masks) for paths in files]
    values = {name: [score[name] for score in scores if name in score] for name in COMPARED}
    return masks, {name: float(np.mean(some)) for name, some in values.items() if some}


def _compared(
    layers: Iterable[np.ndarray],
    targets: dict[int, Target],
    protocol: Protocol,
    rules: Rules,
    masks: Optional[dict[int, PackedMasks]] = None,
) -> dict[str, float]:
    """The metrics of `COMPARED` for the probability of each foreground class, (H, W) each.

    The mask of each class is added to `masks`.
    """
    probability = np.stack(list(layers))
    labels = decide(probability)
    for label in masks or ():
        masks[label].add(labels == label)
    parts = [
        Part(label, targets[label], labels == label, probability[label - 1], protocol, rules=rules)
        for label in _occurring(labels, targets) or targets
    ]
    values = {name: [METRICS[name].function(part) for part in parts] for name in COMPARED}
    return {name: float(np.mean(some)) for name, some in values.items() if None not in some}


def _occurring(labels: np.ndarray, targets: dict[int, Target]) -> list[int]:
    """The foreground classes that the mask or the ground truth has; others would count as perfect."""
    return [label for label in targets if targets[label].mask.any() or (labels == label).any()]


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in metrics.items()}


def _read(paths: Sequence[Path], truth: Truth) -> Iterator[np.ndarray]:
    for path in paths:
        layer = read_probability(path)
        if is_volume(path):
            check_grid(path, geometry_of(path), truth)
        _check_size(layer, path, truth)
        yield layer


def _check_size(array: np.ndarray, path: Path, truth: Truth) -> None:
    if array.shape != truth.shape:
        own, wanted = (" x ".join(map(str, reversed(shape))) for shape in (array.shape, truth.shape))
        raise InputError(
            f"{path}: is {own} pixels, but its ground truth {truth.path} is {wanted}; write predictions at the "
            "original resolution"
        )
