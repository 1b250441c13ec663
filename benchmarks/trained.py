"""A trained network with real images, and the Dice of its masks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medsegdiff.app.sample import find_inputs
from medsegdiff.checkpoints.shipped import find_model
from medsegdiff.checkpoints.weights import Weights, load_weights
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.splits import hold_out
from medsegdiff.inference.jittor_denoiser import JittorDenoiser, load_denoiser
from medsegdiff.inference.segmenter import BatchSegmenter, ImageResult
from medsegdiff.io.masks import read_mask
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.regions import one_region_each
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.training.images import find_images


class Trained:
    """The averaged weights of a checkpoint, and so many of a dataset's images, at equal distances in the list.

    They are of the test set, or with `held_out` those of the training set that its training did not see.
    """

    def __init__(self, model_path: Path, data_dir: Path, images: int, held_out: bool = False) -> None:
        self.weights = load_weights(find_model(model_path), "ema")
        self.model = name_of(self.weights)
        config = self.weights.config
        cases = held_out_cases(config, data_dir) if held_out else find_inputs(str(data_dir), [])
        cases = [case for case in cases if case.mask]
        chosen = np.unique(np.linspace(0, len(cases) - 1, min(images, len(cases))).round().astype(int))
        cases = [cases[index] for index in chosen]
        self.dataset = prepare(cases, config.network.image_size, mask_resize=config.data.mask_resize)
        self.truths = {case.id: read_mask(case.mask) > 0.5 for case in cases}
        self._denoisers: dict[str, JittorDenoiser] = {}

    def segmenter(self, sampling: SamplingConfig) -> BatchSegmenter:
        """The network with a sampler."""
        if sampling.precision not in self._denoisers:  # each has weights of its own
            self._denoisers[sampling.precision] = load_denoiser(self.weights, sampling.precision)
        return BatchSegmenter(self._denoisers[sampling.precision], self.weights.config.diffusion, sampling)

    def segment(self, sampling: SamplingConfig, ids: Sequence[str]) -> Iterator[ImageResult]:
        """Segment some of the images, with their members; an ensemble that settles early comes early."""
        numbers = {name: index for index, name in enumerate(self.dataset.ids)}
        return self.segmenter(sampling).segment(ids, lambda i: self.dataset.image(numbers[ids[i]]), keep_members=True)

    def dice(self, name: str, probability: np.ndarray, postprocess: bool = False) -> float:
        """Dice of a probability (1, S, S) at the image's own resolution, cut at one half; `postprocess` as `sample`."""
        truth = self.truths[name]
        mask = resize_probability(probability[0], truth.shape) > THRESHOLD
        return overlap(one_region_each(mask.astype(np.uint8)) > 0 if postprocess else mask, truth).dice


def held_out_cases(config: RunConfig, data_dir: Path) -> list[Case]:
    """The cases in `data_dir` that a training with this configuration holds out for its validation."""
    here = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=str(data_dir)))
    cases = find_images(here).cases
    dataset = prepare(cases, config.network.image_size, mask_resize=config.data.mask_resize)
    names = set(hold_out(dataset, config.validation.val_fraction)[1].ids)
    return [case for case in cases if case.id in names]


def name_of(weights: Weights) -> str:
    """The checkpoint's name, which is its training step, or else the file's, and a short digest of the weights."""
    source, hasher = Path(weights.source), hashlib.blake2b(digest_size=4)
    for name, array in sorted(weights.arrays.items()):
        hasher.update(f"{name} {array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    folder = source.parent.name
    return f"{folder if folder.startswith('step-') else source.stem}-{hasher.hexdigest()}"
