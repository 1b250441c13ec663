"""Predicting a set of images: from a checkpoint and cases to the prediction files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from medsegdiff import __version__
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, exclusive, make_folder
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints.folder import Weights
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import Prepared
from medsegdiff.data.cases import Case
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference import results
from medsegdiff.inference.progress import Progress
from medsegdiff.inference.segmenter import Segmentation, Segmenter
from medsegdiff.io.ensembles import IMAGES, Ensemble, write_ensembles
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import WRITER, Maps, write_prediction
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
    weights: str = "",
    overwrite: bool = False,
) -> None:
    """Segment `cases`, whose resized images are `dataset`, into the files of `io.predictions` in `out`.

    Beside them `images.csv` (of each image's ensemble what `io.ensembles.Ensemble` lists) and `run.json`.
    Several processes take the images in turn; each writes its own, and the first one the files about all.
    Images that are done already, with the same weights and options, stay as they are.

    Args:
        segmenter: what segments
        cases: the images
        dataset: the same, prepared
        out: the folder to write
        source: where the weights come from, in words
        extras: what else to write
        weights: a digest of the weights
        overwrite: whether predictions with other weights or options, which must not be mixed with these, are removed

    Raises:
        InputError: the folder cannot be written, another process works there, it holds what is not sampling's own
            or was sampled otherwise, or an image to trace is not there.
    """
    extras = extras or Extras()
    tracer = _Tracer({name: [] for name in extras.traces})
    for name in extras.traces:
        if name not in dataset.ids:
            raise InputError(f"--trace {name}: no such image; the first is {dataset.ids[0]}")
    wanted = results.settings(segmenter.sampling, weights)
    make_folder(out)
    begun = time.time()
    by_id = {case.id: case for case in cases}
    with ExitStack() as stack:
        if ranks.rank() == 0:
            stack.enter_context(exclusive(out))
            clear_leftovers(out)
            ledger = Ledger(out, WRITER)
            results.check(ledger, wanted, dataset.ids, overwrite)
            results.clear(ledger, wanted)
        exchange.tell(None)  # the others begin when the folder is ours
        ledger = Ledger(out, WRITER)
        abouts = {
            case.id: {
                "image": case.id,
                "content": results.content(dataset, index, case, extras.overlays),
                "extras": [extras.members, extras.overlays, case.id in extras.traces],
                "settings": wanted,
            }
            for index, case in enumerate(cases)
        }
        # With a control the noise depends on all images: that is sampled anew each time.
        done = set() if segmenter.sampling.control else results.finished(ledger, abouts)
        if done:
            print(f"{len(done)} of {len(cases)} images are done already, with the same weights and options")
        # Process 0 says which are left: the others may have seen more done.
        left = exchange.tell([index for index, case in enumerate(cases) if case.id not in done])
        chosen = left[ranks.rank() :: ranks.count()]
        if chosen:
            announce_kernels()
        with Progress([dataset.ids[index] for index in chosen], segmenter.sampling) as progress:

            def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
                progress.step(ids)
                tracer.see(ids, members, state)

            ensembles = {}
            for result in segmenter.segment(dataset.ids, dataset.image, extras.members, on_step, chosen):
                progress.settled(result.id)
                ensembles[result.id] = Ensemble(result.count, result.empty, result.agreement)
                about = {**abouts[result.id], "ensemble": ensembles[result.id]}
                case = by_id[result.id]
                _write(result, case, dataset, ledger, extras, tracer, segmenter.sampling.postprocess, about)
        parts = exchange.collect(ensembles)
        if ranks.rank() == 0:
            found = results.known(ledger, wanted)
            found.update({name: Ensemble(*values) for part in parts for name, values in part.items()})
            with ledger.together(results.RUN, [IMAGES]) as stage:
                write_ensembles(stage, {name: found[name] for name in [*dataset.ids, *sorted(found)]})
                _write_run(stage, segmenter, source, dataset, len(done), time.time() - begun)


@dataclass
class _Tracer:
    """Keeps the steps of the first member of some images."""

    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def see(self, ids: Sequence[str], members: Sequence[int], state: State) -> None:
        for row, (name, member) in enumerate(zip(ids, members)):
            if name in self.frames and member == 0:
                self.frames[name].append(Frame(state.x[row].copy(), state.x0[row].copy()))


def _write(
    result: Segmentation,
    case: Case,
    dataset: Prepared,
    ledger: Ledger,
    extras: Extras,
    tracer: _Tracer,
    postprocess: bool,
    about: dict[str, Any],
) -> None:
    index = dataset.ids.index(result.id)
    maps = Maps(result.probability, result.std, result.cal if extras.members else None, result.members)
    maps = maps.resized(dataset.original_sizes[index])
    mask = one_region_each(decide(maps.probability)) if postprocess else None

    def draw(folder: Path) -> None:
        if extras.overlays:
            picture = overlay(read_image(case.image), *_foreground(maps, mask, case), maps.std.max(axis=0))
            Image.fromarray(picture).save(folder / f"{result.id}_overlay.png")
        if result.id in tracer.frames:
            write_trace(folder, result.id, dataset.image(index), tracer.frames[result.id])

    write_prediction(ledger, result.id, maps, mask, draw, about)


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


def _write_run(out: Path, segmenter: Segmenter, source: str, dataset: Prepared, done: int, seconds: float) -> None:
    run: dict[str, Any] = {
        "weights": source,
        "sampling": dataclasses.asdict(segmenter.sampling),
        "network_evaluations_per_mask": segmenter.evaluations,
        "images": list(dataset.ids),
        "images_done_before": done,
        "dataset": dataset.fingerprint,
        "seconds": round(seconds, 2),
        "processes": ranks.count(),
        "versions": {"medsegdiff": __version__, "jittor": jt.__version__, "numpy": np.__version__},
    }
    (out / results.RUN).write_text(json.dumps(run, indent=1))
