"""Predicting a set of images: from a checkpoint and cases to the prediction files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from medsegdiff import __version__
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, replacing
from medsegdiff.data.cache import Prepared
from medsegdiff.data.cases import Case
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.files import Extras, write_image
from medsegdiff.inference.progress import ProgressBar
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.io.ensembles import ImageRow, write_ensembles
from medsegdiff.io.pictures import read_image
from medsegdiff.plots.trace import Frame, write_trace
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.toolchain import announce_kernels


def predict(
    segmenter: BatchSegmenter,
    cases: Sequence[Case],
    dataset: Prepared,
    out: Path,
    source: str,
    extras: Optional[Extras] = None,
) -> None:
    """Segment `cases`, whose resized images are `dataset`, into the files of `io.predictions` in `out`.

    Beside them `images.csv` (of each image's ensemble what `io.ensembles.ImageRow` lists) and `run.json`.
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
    ensembles = {}
    chosen = range(ranks.rank(), len(cases), ranks.count())
    with ProgressBar([dataset.ids[index] for index in chosen], segmenter.sampling) as progress:

        def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
            progress.step(ids)
            tracer.see(ids, members, state)

        for result in segmenter.segment(dataset.ids, dataset.image, extras.members, on_step, chosen):
            progress.settled(result.id)
            case, size = cases[result.index], dataset.original_sizes[result.index]
            picture, postprocess = partial(read_image, case.image), segmenter.sampling.postprocess
            write_image(out, result, size, picture, extras, postprocess, case.mask)
            ensembles[result.id] = ImageRow(result.count, result.empty, result.agreement)
            if result.id in tracer.frames:
                write_trace(out, result.id, dataset.image(result.index), tracer.frames[result.id])
    parts = exchange.collect(ensembles)
    if ranks.rank() == 0:
        found = {name: ImageRow(*values) for part in parts for name, values in part.items()}
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


def _write_run(out: Path, segmenter: BatchSegmenter, source: str, dataset: Prepared, seconds: float) -> None:
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
