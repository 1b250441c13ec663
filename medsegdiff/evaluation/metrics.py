"""The table of metrics. A new metric is a row of `METRICS`: measured, summarised, shown and written by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.base.bounds import SEEDS, bounded, check_fields
from medsegdiff.io.ensembles import ImageRow
from medsegdiff.masks import uncertainty
from medsegdiff.masks.metrics import Overlap, overlap
from medsegdiff.masks.protocols import Protocol, ProtocolName, make_protocol
from medsegdiff.masks.surface import Empty, Surface, surface


@dataclass(frozen=True)
class Rules:
    """How predictions are compared with the ground truth.

    Args:
        protocol: how probabilities are compared at thresholds: ours, as they are; original, as the PyTorch code does,
            each divided by its maximum; jittor, as the published Jittor project does, each stretched to [0, 1]
        protocol_size: side of the square where they are compared; default: the protocol's own, 256, of jittor 64
        num_classes: classes, background included; above 2 masks hold class indices; default: as in training, else 2
        empty: score where prediction and ground truth are both empty: none (skip), the best (one) or the worst (zero)
        tolerance: tolerance of the surface Dice, in millimetres for volumes, else in pixels
        seed: seed of the bootstrap
    """

    protocol: ProtocolName = "ours"
    protocol_size: Optional[int] = None
    num_classes: int = bounded(2, 2, 256)
    empty: Empty = "one"
    tolerance: float = bounded(1.0, 0, 1e6)
    seed: int = bounded(0, *SEEDS)

    def __post_init__(self) -> None:
        check_fields(self)
        make_protocol(self.protocol, self.protocol_size)


USUAL = Rules()


class Target(NamedTuple):
    """What predictions of one foreground class are compared with."""

    mask: np.ndarray
    """bool (H, W): the ground truth."""
    square: Optional[np.ndarray]
    """float32, see `Protocol.target`; None of a volume, which no published protocol is for."""


@dataclass
class Part:
    """A prediction of one foreground class beside its ground truth: all that a metric may be a function of."""

    label: int
    target: Target
    mask: np.ndarray
    """bool (H, W), of the ground truth's size."""
    layer: np.ndarray
    """float32 in [0, 1], of the file's size: the probability, or the mask where there is none."""
    protocol: Protocol
    probability: Optional[np.ndarray] = None
    """float32 (H, W), of the ground truth's size."""
    members: Optional[uncertainty.PackedMasks] = None
    ensemble: Optional[ImageRow] = None
    spacing: Optional[tuple[float, ...]] = None
    """Millimetres from pixel to pixel along each axis; None where unknown."""
    rules: Rules = USUAL

    @cached_property
    def overlap(self) -> Optional[Overlap]:
        """Of both masks; None where two empty ones do not count."""
        if self.rules.empty == "one" or self.mask.any() or self.target.mask.any():
            return overlap(self.mask, self.target.mask)
        return Overlap(0.0, 0.0, 0.0, 0.0) if self.rules.empty == "zero" else None

    @cached_property
    def surface(self) -> Optional[Surface]:
        """Of both masks; None where two empty ones do not count."""
        return surface(self.mask, self.target.mask, self.spacing, self.rules.tolerance, self.rules.empty)

    @cached_property
    def published(self) -> tuple[Optional[float], Optional[float]]:
        """IoU and Dice by the protocol."""
        square = self.target.square
        return (None, None) if square is None else self.protocol.iou_dice(self.layer, square)


class Need(NamedTuple):
    """What only some predictions have, and how to get it."""

    sign: str
    """A metric: images that have it have this."""
    enables: str
    lacking: str
    remedy: str


_SAVE = "run sample with --save-members"
NEEDS = {
    "probability": Need("brier", "Brier score, ECE", "a probability (ID_prob.png)", "sample writes it"),
    "members": Need("member_dice", "GED, single members", "saved members (ID_member0.png, ...)", _SAVE),
    "cal": Need("cal_dice", "conditioning network against ensemble", "that network's mask (ID_cal.png)", _SAVE),
    "ensemble": Need(
        "agreement", "error retention", "an agreement in images.csv", "run sample with at least 2 members"
    ),
}


class Metric(NamedTuple):
    """A number of an image: the mean over its foreground classes that occur."""

    label: str
    """Its name on the screen, see `Metric.shown`; the first word names it over a column."""
    function: Callable[[Part], Optional[float]]
    """The metric of one class; None where it has none."""
    needs: str = "mask"
    """A key of `NEEDS`, or "mask": always there. Of a probability all classes count, also those that do not occur."""
    by_class: bool = False
    """Whether it is also given class by class, where there are several."""
    meaning: str = ""

    def shown(self, unit: str, tolerance: str) -> str:
        """The label, with the `unit` of distances, pixels or mm, and the tolerance of the surface Dice in it."""
        return self.label.format(unit=unit, tolerance=tolerance)


def _of_overlap(name: str, label: str) -> Metric:
    return Metric(label, lambda part: part.overlap and getattr(part.overlap, name), by_class=True)


def _of_surface(name: str, label: str, meaning: str) -> Metric:
    return Metric(label, lambda part: part.surface and getattr(part.surface, name), by_class=True, meaning=meaning)


METRICS = {
    "published_iou": Metric("IoU, published protocol", lambda part: part.published[0]),
    "published_dice": Metric("Dice, published protocol", lambda part: part.published[1]),
    "dice": _of_overlap("dice", "Dice at 0.5"),
    "iou": _of_overlap("iou", "IoU at 0.5"),
    "precision": _of_overlap("precision", "Precision at 0.5"),
    "recall": _of_overlap("recall", "Recall at 0.5"),
    "hd95": _of_surface(
        "hd95", "HD95 ({unit}, best 0)", "95th percentile of the surfaces' distances, the larger of both directions"
    ),
    "assd": _of_surface("assd", "ASSD ({unit}, best 0)", "mean distance of both surfaces' pixels to the other surface"),
    "nsd": _of_surface(
        "nsd", "NSD at {tolerance} {unit}", "share of both surfaces within the tolerance of the other one"
    ),
    "lesion_f1": _of_surface("lesion_f1", "Lesion F1", "of connected regions, found where the masks share a pixel"),
    "volume_difference": _of_surface(
        "volume_difference", "Volume difference (best 0)", "of the foregrounds, in pixels, mm^2 or mm^3"
    ),
    "brier": Metric(
        "Brier score (best 0)",
        lambda part: uncertainty.brier(part.probability, part.target.mask),
        needs="probability",
        meaning="squared error of the probability, mean over pixels",
    ),
    "ged": Metric(
        "GED of the members (best 0)",
        lambda part: uncertainty.generalised_energy_distance(part.members, part.target.mask),
        needs="members",
        meaning="squared generalised energy distance with 1 - IoU of the members' masks; it falls with their number: "
        "compare equal ones only",
    ),
    "agreement": Metric(
        "Agreement of the members",
        lambda part: part.ensemble.agreement,
        needs="ensemble",
        meaning="mean Dice of two members; 1 also where all of them are empty",
    ),
    "empty_members": Metric(
        "Share of empty members", lambda part: part.ensemble.empty / part.ensemble.members, needs="ensemble"
    ),
}
"""By their names in files."""

COMPARED = ("dice", "iou", "published_dice", "published_iou")
"""The metrics that the conditioning network, single members and the ensemble are compared by."""


def class_metrics(num_classes: int) -> list[str]:
    """Names of the metrics of single foreground classes; none where there is one class only."""
    labels = range(1, num_classes) if num_classes > 2 else ()
    names = [name for name, metric in METRICS.items() if metric.by_class]
    return [f"{name}_class{label}" for label in labels for name in names]


def columns(num_classes: int) -> tuple[list[str], list[str]]:
    """Names of all numbers of an image: those that every image has, and the others."""
    always = [name for name, metric in METRICS.items() if metric.needs == "mask"]
    others = [name for name in METRICS if name not in always]
    others += [f"{source}_{name}" for source in ("cal", "member") for name in COMPARED]
    return always, [*others, *class_metrics(num_classes)]
