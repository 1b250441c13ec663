"""Predicting a set of images: from a checkpoint and cases to the prediction files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from medsegdiff import __version__
from medsegdiff.base import machine, ranks
from medsegdiff.base.beside import beside
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, exclusive, make_folder
from medsegdiff.base.ownership import Ledger
from medsegdiff.data.cases import Case
from medsegdiff.data.prepared import Prepared
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference import results
from medsegdiff.inference.files import Extras, row_of, write_image
from medsegdiff.inference.progress import ProgressBar
from medsegdiff.inference.segmenter import BatchSegmenter, ImageResult
from medsegdiff.inference.volumes import write_case
from medsegdiff.io.ensembles import IMAGES, ImageRow, write_ensembles
from medsegdiff.io.labels import format_labels
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import WRITER
from medsegdiff.io.volumes import is_volume
from medsegdiff.plots.trace import Frame, write_trace
from medsegdiff.runtime import exchange

_THREADS = 4  # that write files, at most
_PIXELS = 1 << 25  # of pictures that are written at a time, or a single one: of each pixel some 10 bytes are held


def predict(
    segmenter: BatchSegmenter,
    cases: Sequence[Case],
    dataset: Prepared,
    out: Path,
    source: str,
    extras: Optional[Extras] = None,
    weights: str = "",
    overwrite: bool = False,
    kept: Sequence[str] = (),
) -> None:
    """Segment `cases`, whose slices are `dataset`, into the files of `io.predictions` in `out`.

    A volume is segmented slice by slice, and written when its last one is; blank slices that the dataset lacks are
    background. Beside the predictions `images.csv` (of each image's ensemble what `io.ensembles.ImageRow` lists) and
    `run.json`. Several processes take the images in turn; each writes its own, and the first one the files about all.
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
        kept: the cases that training kept for testing, for `evaluate`

    Raises:
        InputError: the folder cannot be written, another process works there, it holds what is not sampling's own
            or was sampled otherwise, or an image to trace is not there.
    """
    extras = extras or Extras()
    tracer = _Tracer({name: [] for name in extras.traces})
    for name in extras.traces:
        if name not in dataset.ids:
            raise InputError(f"`trace` {name}: no such image; the first is {dataset.ids[0]}")
    names = [case.id for case in cases]
    slices = dataset.by_case
    wanted = results.settings(segmenter.sampling, weights)
    make_folder(out)
    begun = time.time()
    with ExitStack() as stack:
        if ranks.rank() == 0:
            stack.enter_context(exclusive(out))
            clear_leftovers(out)
            ledger = Ledger(out, WRITER)
            results.check(ledger, wanted, names, overwrite)
            results.clear(ledger, wanted)
        exchange.tell(None)  # the others begin when the folder is ours
        ledger = Ledger(out, WRITER)
        abouts = {
            case.id: {
                "image": case.id,
                "content": results.content(dataset, slices[index], case, extras.overlays),
                "extras": [extras.members, extras.overlays, extras.maps, case.id in extras.traces],
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
        chosen = [index for place in left[ranks.rank() :: ranks.count()] for index in slices[place]]
        threads = min(machine.usable_cores(), _THREADS)
        progress = ProgressBar([dataset.ids[index] for index in chosen], segmenter.sampling)
        with progress, beside(threads) as do:  # files are written while the next images are computed

            def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
                progress.step(ids)
                tracer.see(ids, members, state)

            ensembles = {}
            found: dict[int, list[ImageResult]] = defaultdict(list)
            for result in segmenter.segment(dataset.ids, dataset.image, extras.members, on_step, chosen):
                progress.settled(result.id)
                place, _ = dataset.slices[result.index]
                found[place].append(result)
                if len(found[place]) < len(slices[place]):
                    continue
                case, done_slices = cases[place], found.pop(place)
                ensembles[case.id] = row_of(done_slices)
                about = {**abouts[case.id], "ensemble": ensembles[case.id]}
                postprocess = segmenter.sampling.postprocess
                if is_volume(case.image):
                    do(partial(write_case, ledger, case, dataset, done_slices, extras, postprocess, about))
                    continue
                size, labels = dataset.original_sizes[result.index], dataset.form.spec.labels
                picture = partial(read_image, case.image)
                trace = partial(tracer.write, id=result.id, image=dataset.image(result.index))
                write = partial(
                    write_image, ledger, result, size, picture, extras, postprocess, case.mask, trace, about, labels
                )
                do(write, size[0] * size[1] / _PIXELS)
        parts = exchange.collect(ensembles)
        if ranks.rank() == 0:
            rows = results.known(ledger, wanted)
            rows.update({name: ImageRow(*values) for part in parts for name, values in part.items()})
            with ledger.together(results.RUN, [IMAGES]) as stage:
                write_ensembles(stage, {name: rows[name] for name in [*names, *sorted(rows)]})
                _write_run(stage, segmenter, source, dataset, len(done), time.time() - begun, kept)


@dataclass
class _Tracer:
    """Keeps the steps of the first member of some images."""

    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def see(self, ids: Sequence[str], members: Sequence[int], state: State) -> None:
        for row, (name, member) in enumerate(zip(ids, members)):
            if name in self.frames and member == 0:
                self.frames[name].append(Frame(state.x[row].copy(), state.x0[row].copy()))

    def write(self, folder: Path, id: str, image: np.ndarray) -> None:
        """Write the trace of the image `id`, if it is kept."""
        if id in self.frames:
            write_trace(folder, id, image, self.frames[id])


def _write_run(
    out: Path, segmenter: BatchSegmenter, source: str, dataset: Prepared, done: int, seconds: float, kept: Sequence[str]
) -> None:
    run: dict[str, Any] = {
        "weights": source,
        "sampling": dataclasses.asdict(segmenter.sampling),
        "network_evaluations_per_mask": segmenter.evaluations,
        "images": [case.id for case in dataset.cases],
        "image_files": {case.id: str(case.image.absolute()) for case in dataset.cases},
        "kept": list(kept),
        "labels": format_labels(dataset.form.spec.labels),
        "num_classes": dataset.num_classes,
        "images_done_before": done,
        "dataset": dataset.fingerprint,
        "seconds": round(seconds, 2),
        "processes": ranks.count(),
        "backend": segmenter.denoiser.backend,
        "versions": {"medsegdiff": __version__, "numpy": np.__version__},
    }
    (out / results.RUN).write_text(json.dumps(run, indent=1), encoding="utf-8")
