"""Predicting a set of images: from a checkpoint and cases to the prediction files."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from medsegdiff import __version__
from medsegdiff.data.cache import Prepared
from medsegdiff.data.cases import Case
from medsegdiff.data.images import read_image, read_mask
from medsegdiff.engine.checkpoint import Weights
from medsegdiff.engine.config import SamplingConfig
from medsegdiff.engine.segmentation import Segmentation, Segmenter
from medsegdiff.masks.files import resize_probability, write_prediction
from medsegdiff.masks.pictures import overlay
from medsegdiff.nn.network import MedSegDiff
from medsegdiff.nn.weights import load, state
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.files import make_folder, replacing
from medsegdiff.runtime.toolchain import announce_kernels


def build_segmenter(weights: Weights, sampling: SamplingConfig) -> Segmenter:
    """A segmenter with trained weights.

    Raises:
        InputError: the weights do not fit their own configuration.
    """
    network = MedSegDiff(weights.config.network)
    if any(name not in weights.arrays for name in state(network)):
        network.initialise()  # published checkpoints lack a layer
    for note in load(network, weights.arrays, weights.source):
        print(f"note: {note}")
    return Segmenter(network, weights.config.diffusion, sampling)


def predict(
    segmenter: Segmenter,
    cases: Sequence[Case],
    dataset: Prepared,
    out: Path,
    source: str,
    save_members: bool = False,
    overlays: bool = False,
) -> None:
    """Segment `cases`, whose resized images are `dataset`, into the files of `masks.files` in `out`.

    Raises:
        InputError: the folder cannot be written.
    """
    make_folder(out)
    announce_kernels()
    begun = time.time()
    masks = len(cases) * segmenter.sampling.members
    by_id = {case.id: (case, size) for case, size in zip(cases, dataset.original_sizes)}
    quiet = not sys.stderr.isatty()
    with tqdm(
        total=masks * segmenter.evaluations,
        desc=f"{len(cases)} images x {segmenter.sampling.members} members x {segmenter.evaluations} steps",
        unit="eval",
        mininterval=20 if quiet else 0.2,
        dynamic_ncols=True,
    ) as bar:
        for result in segmenter.segment(dataset.ids, dataset.image, save_members, bar.update):
            case, size = by_id[result.id]
            _write(result, case, size, out, overlays)
    _write_run(out, segmenter, source, dataset, time.time() - begun)


def _write(result: Segmentation, case: Case, size: tuple[int, int], out: Path, overlays: bool) -> None:
    probability = resize_probability(result.mean[0], size)
    std = resize_probability(result.std[0], size)
    write_prediction(out, result.id, probability, std, [resize_probability(m[0], size) for m in result.members])
    if overlays:
        truth = None if case.mask is None else read_mask(case.mask) > 127
        picture = overlay(read_image(case.image), probability, truth, std)
        with replacing(out / f"{result.id}_overlay.png") as beside:
            Image.fromarray(picture).save(beside, format="PNG")


def _write_run(out: Path, segmenter: Segmenter, source: str, dataset: Prepared, seconds: float) -> None:
    run: dict[str, Any] = {
        "weights": source,
        "sampling": dataclasses.asdict(segmenter.sampling),
        "network_evaluations_per_mask": segmenter.evaluations,
        "fusion": "mean",
        "images": list(dataset.ids),
        "dataset": dataset.fingerprint,
        "seconds": round(seconds, 2),
        "versions": {"medsegdiff": __version__, "jittor": jt.__version__, "numpy": np.__version__},
    }
    with replacing(out / "run.json") as beside:
        beside.write_text(json.dumps(run, indent=1))
