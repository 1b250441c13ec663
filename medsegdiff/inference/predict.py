"""Predicting a set of images: from a checkpoint and cases to the prediction files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from medsegdiff import __version__
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, replacing
from medsegdiff.checkpoints.folder import Weights
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import Prepared
from medsegdiff.data.cases import Case
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.progress import Progress
from medsegdiff.inference.segmenter import Segmentation, Segmenter
from medsegdiff.io.ensembles import Ensemble, write_ensembles
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import Maps, write_prediction
from medsegdiff.masks.decision import decide
from medsegdiff.masks.regions import one_region_each
from medsegdiff.nn.network import MedSegDiff
from medsegdiff.nn.weights import load, state
from medsegdiff.plots.overlay import overlay
from medsegdiff.plots.trace import Frame, write_trace
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.toolchain import announce_kernels


@dataclass(frozen=True)
class Extras:
    """What is written besides the masks, their probabilities and their uncertainty.

    Args:
        members: every member, and the conditioning network's own mask
        overlays: each mask drawn over its image
        traces: ids of images whose first member's way from noise to mask is drawn
    """

    members: bool = False
    overlays: bool = False
    traces: Sequence[str] = ()


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
    if sampling.precision == "bf16":
        network.narrow()
    return Segmenter(network, weights.config.diffusion, sampling)


def predict(
    segmenter: Segmenter,
    cases: Sequence[Case],
    dataset: Prepared,
    out: Path,
    source: str,
    extras: Optional[Extras] = None,
) -> None:
    """Segment `cases`, whose resized images are `dataset`, into the files of `io.predictions` in `out`.

    Beside them `images.csv` (of each image's ensemble what `io.ensembles.Ensemble` lists) and `run.json`.
    Several processes take the images in turn; each writes its own, and the first one the files about all.

    Raises:
        InputError: the folder cannot be written, or an image to trace is not there.
    """
    extras = extras or Extras()
    tracer = _Tracer({name: [] for name in extras.traces})
    for name in extras.traces:
        if name not in dataset.ids:
            raise InputError(f"--trace {name}: no such image; the first is {dataset.ids[0]}")
    make_folder(out)
    announce_kernels()
    begun = time.time()
    by_id = {case.id: (case, size) for case, size in zip(cases, dataset.original_sizes)}
    ensembles = {}
    chosen = range(ranks.rank(), len(cases), ranks.count())
    with Progress([dataset.ids[index] for index in chosen], segmenter.sampling) as progress:

        def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
            progress.step(ids)
            tracer.see(ids, members, state)

        for result in segmenter.segment(dataset.ids, dataset.image, extras.members, on_step, chosen):
            progress.settled(result.id)
            case, size = by_id[result.id]
            _write(result, case, size, out, extras, segmenter.sampling.postprocess)
            ensembles[result.id] = Ensemble(result.count, result.empty, result.agreement)
            if result.id in tracer.frames:
                write_trace(out, result.id, dataset.image(dataset.ids.index(result.id)), tracer.frames[result.id])
    parts = exchange.collect(ensembles)
    if ranks.rank() == 0:
        found = {name: Ensemble(*values) for part in parts for name, values in part.items()}
        write_ensembles(out, {name: found[name] for name in dataset.ids})
        _write_run(out, segmenter, source, dataset, time.time() - begun)


@dataclass
class _Tracer:
    """Keeps the steps of the first member of some images."""

    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def see(self, ids: Sequence[str], members: Sequence[int], state: State) -> None:
        for row, (name, member) in enumerate(zip(ids, members)):
            if name in self.frames and member == 0:
                self.frames[name].append(Frame(state.x[row].copy(), state.x0[row].copy()))


def _write(
    result: Segmentation, case: Case, size: tuple[int, int], out: Path, extras: Extras, postprocess: bool
) -> None:
    maps = Maps(result.probability, result.std, result.cal if extras.members else None, result.members).resized(size)
    mask = one_region_each(decide(maps.probability)) if postprocess else None
    write_prediction(out, result.id, maps, mask)
    if extras.overlays:
        picture = overlay(read_image(case.image), *_foreground(maps, mask, case), maps.std.max(axis=0))
        with replacing(out / f"{result.id}_overlay.png") as beside:
            Image.fromarray(picture).save(beside, format="PNG")


def _foreground(maps: Maps, mask: Optional[np.ndarray], case: Case) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """What is outlined: the mask (H, W), as a probability, and the ground truth; of several classes all together."""
    single = len(maps.probability) == 1
    if single and mask is None:
        outlined = maps.probability[0]
    else:
        outlined = ((decide(maps.probability) if mask is None else mask) > 0).astype(np.float32)
    if case.mask is None:
        return outlined, None
    return outlined, read_mask(case.mask) > 0.5 if single else read_labels(case.mask) > 0


def _write_run(out: Path, segmenter: Segmenter, source: str, dataset: Prepared, seconds: float) -> None:
    run: dict[str, Any] = {
        "weights": source,
        "sampling": dataclasses.asdict(segmenter.sampling),
        "network_evaluations_per_mask": segmenter.evaluations,
        "images": list(dataset.ids),
        "dataset": dataset.fingerprint,
        "seconds": round(seconds, 2),
        "processes": ranks.count(),
        "versions": {"medsegdiff": __version__, "jittor": jt.__version__, "numpy": np.__version__},
    }
    with replacing(out / "run.json") as beside:
        beside.write_text(json.dumps(run, indent=1))
