"""From the metrics of single images to those of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.evaluation.measure import Score
from medsegdiff.evaluation.metrics import COMPARED, METRICS, NEEDS
from medsegdiff.masks.statistics import Summary, summarise
from medsegdiff.masks.uncertainty import Retention, error_retention, expected_calibration_error, rank_correlation


def summaries(scores: Sequence[Score], keys: Sequence[str], seed: int) -> dict[str, Summary]:
    """Summarise each metric over the images that have it; metrics that none has are left out."""
    values = {key: [score.metrics[key] for score in scores if key in score.metrics] for key in keys}
    return {key: summarise(some, seed) for key, some in values.items() if some}


def by_patient(scores: Sequence[Score], patients: Mapping[str, str], seed: int) -> dict[str, Summary]:
    """Summaries of the mask's metrics over patients, each with the mean of its images; none where each has one."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(patients.get(score.id) or score.id, []).append(score)
    if len(groups) == len(scores):
        return {}
    found = {}
    for key in (name for name, metric in METRICS.items() if metric.needs == "mask"):
        of_patients = [[one.metrics[key] for one in group if key in one.metrics] for group in groups.values()]
        means = [float(np.mean(values)) for values in of_patients if values]
        if means:
            found[key] = summarise(means, seed)
    return found


class Calibration(NamedTuple):
    """How well probabilities are calibrated over the images that have one."""

    ece: float
    """Expected calibration error, the mean over foreground classes."""
    images: int
    bins: np.ndarray
    """(3, bins): of `calibration_histogram`, the mean over images and foreground classes."""


def calibration(scores: Sequence[Score]) -> Optional[Calibration]:
    """Measure calibration; None where no image has a probability."""
    histograms = [score.calibration for score in scores if score.calibration is not None]
    if not histograms:
        return None
    by_class = np.swapaxes(histograms, 0, 1)
    error = float(np.mean([expected_calibration_error(some) for some in by_class]))
    return Calibration(error, len(histograms), np.mean(by_class, axis=(0, 1)))


class Comparison(NamedTuple):
    """The same metrics, over the same images, of the conditioning network, of single members and of the ensemble.

    `metrics` maps each of `COMPARED` to the summaries of "cal", "member", "ensemble" and "ensemble - cal", the
    last one of the difference image by image.
    """

    metrics: dict[str, dict[str, Summary]]
    images: int


def comparison(scores: Sequence[Score], seed: int) -> Optional[Comparison]:
    """Compare over the images that have both other predictions; None where there is no such image."""
    both = [score.metrics for score in scores if {"cal_dice", "member_dice", "dice"} <= score.metrics.keys()]
    if not both:
        return None
    metrics = {}
    for key in (name for name in COMPARED if all(f"member_{name}" in image for image in both)):
        cal, member, ensemble = (
            np.array([image[prefix + key] for image in both]) for prefix in ("cal_", "member_", "")
        )
        rows = {"cal": cal, "member": member, "ensemble": ensemble, "ensemble - cal": ensemble - cal}
        metrics[key] = {name: summarise(values, seed) for name, values in rows.items()}
    return Comparison(metrics, len(both))


class Selection(NamedTuple):
    """How well the members' agreement tells good masks from bad, over the images that have one."""

    retention: Retention
    """Of the error 1 - Dice by the confidence "agreement"."""
    correlation: float
    """Spearman's, of agreement and Dice; NaN where all images are alike in one of them."""
    images: int
    empty: int
    """Of how many images every member is empty, which is an agreement of 1."""


def selection(scores: Sequence[Score]) -> Optional[Selection]:
    """Measure it; None where fewer than two images have an agreement."""
    known = [score.metrics for score in scores if {"agreement", "dice"} <= score.metrics.keys()]
    if len(known) < 2:
        return None
    agreement, dice = (np.array([image[key] for image in known]) for key in ("agreement", "dice"))
    empty = sum(image["empty_members"] == 1 for image in known)
    return Selection(error_retention(1 - dice, agreement), rank_correlation(agreement, dice), len(known), empty)


def gaps(scores: Sequence[Score]) -> list[str]:
    """What could not be measured, or not of all images, a line each."""
    lines = []
    for sign, what, lacking, remedy in NEEDS.values():
        without = sum(sign not in score.metrics for score in scores)
        if without == len(scores):
            lines.append(f"{what}: not measured, no image has {lacking}; {remedy}")
        elif without:
            lines.append(f"{what}: without {without} of {len(scores)} images, which do not have {lacking}")
    if sum("agreement" in score.metrics for score in scores) == 1:
        lines.append("error retention: not measured, it needs at least 2 images")
    return lines
