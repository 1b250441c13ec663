"""A trained network with real test images, and the Dice of what it says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medsegdiff.app.sample import find_inputs
from medsegdiff.checkpoints.folder import Weights, load_weights
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.inference.jittor_denoiser import JittorDenoiser, load_denoiser
from medsegdiff.inference.segmenter import BatchSegmenter, ImageResult
from medsegdiff.io.masks import read_mask
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.resizing import resize_probability


class Trained:
    """The averaged weights of a checkpoint, and so many of a dataset's test images, at equal distances in the list."""

    def __init__(self, model_path: Path, data_dir: Path, images: int) -> None:
        self.weights = load_weights(model_path, "ema")
        self.model = name_of(self.weights)
        config = self.weights.config
        cases = [case for case in find_inputs(str(data_dir), []) if case.mask]
        chosen = np.unique(np.linspace(0, len(cases) - 1, min(images, len(cases))).round().astype(int))
        cases = [cases[index] for index in chosen]
        self.dataset = prepare(cases, config.network.image_size, mask_resize=config.data.mask_resize)
        self.truths = {case.id: read_mask(case.mask) > 0.5 for case in cases}
        self._network = load_denoiser(self.weights).network

    def segmenter(self, sampling: SamplingConfig) -> BatchSegmenter:
        """The network with a sampler."""
        denoiser = JittorDenoiser(self._network, sampling.precision)
        return BatchSegmenter(denoiser, self.weights.config.diffusion, sampling)

    def segment(self, sampling: SamplingConfig, ids: Sequence[str]) -> Iterator[ImageResult]:
        """Segment some of the images, with their members; an ensemble that settles early comes early."""
        numbers = {name: index for index, name in enumerate(self.dataset.ids)}
        return self.segmenter(sampling).segment(ids, lambda i: self.dataset.image(numbers[ids[i]]), keep_members=True)

    def dice(self, name: str, probability: np.ndarray) -> float:
        """Dice of a probability (1, S, S) at the image's own resolution, cut at one half."""
        truth = self.truths[name]
        return overlap(resize_probability(probability[0], truth.shape) > THRESHOLD, truth).dice


def name_of(weights: Weights) -> str:
    """The checkpoint's name, which is its training step, or else the file's, and a short digest of the weights."""
    source, hasher = Path(weights.source), hashlib.blake2b(digest_size=4)
    for name, array in sorted(weights.arrays.items()):
        hasher.update(f"{name} {array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    folder = source.parent.name
    return f"{folder if folder.startswith('step-') else source.stem}-{hasher.hexdigest()}"
