"""What a report shows of an image, read as slices (D, H, W, ...): of a picture there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from medsegdiff.data.scaling import EIGHT_BITS, PERCENTILE
from medsegdiff.data.source import Source, shown
from medsegdiff.data.spec import DataSpec
from medsegdiff.evaluation.truth import read_truth
from medsegdiff.io.labels import parse_labels
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import read_probability
from medsegdiff.io.volumes import is_volume, read_volume, to_slices
from medsegdiff.web.runs import Run


def read_picture(path: Path, run: Run, axis: str) -> np.ndarray:
    """The image as uint8 (D, H, W, 3), a volume's intensities as the training of `run` scaled them.

    Raises:
        InputError: it cannot be read; so do the other functions here.
    """
    if not is_volume(path):
        return read_image(path)[None]
    values, geometry = read_volume(path)
    values = values if values.ndim == 4 else values[..., None]
    scaling = run.config.get("scaling", PERCENTILE) or EIGHT_BITS
    spec = DataSpec(values.shape[-1], scaling, colour=run.config.get("colour", True))
    return shown(Source(to_slices(values, geometry, axis), geometry), spec)


def read_foreground(path: Path, run: Run, axis: str, prediction: Optional[Path] = None) -> np.ndarray:
    """How much of each pixel is foreground, float32 (D, H, W): of a mask, or of the ground truth of a `prediction`."""
    classes = run.summary.get("num_classes", 2)
    # Predicted pictures hold classes, all else the dataset's values.
    labels = parse_labels(run.sampled.get("labels", "")) if prediction or is_volume(path) else {}
    found = read_truth(path, classes, labels, prediction)
    values = found.values if classes == 2 else (found.values > 0).astype(np.float32)
    return values[None] if found.geometry is None else to_slices(values, found.geometry, axis)


def read_deviation(paths: Sequence[Path], axis: str) -> np.ndarray:
    """The largest standard deviation of all classes, a file for each, float32 (D, H, W)."""
    largest = np.max([read_probability(path) for path in paths], axis=0)
    return to_slices(largest, read_volume(paths[0]).geometry, axis) if is_volume(paths[0]) else largest[None]
