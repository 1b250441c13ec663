"""A trained network with real test images, and the Dice of what it says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsegdiff.app.sample import find_inputs
from medsegdiff.data.cache import prepare
from medsegdiff.data.images import read_mask
from medsegdiff.engine.checkpoint import load_weights
from medsegdiff.engine.config import SamplingConfig
from medsegdiff.engine.prediction import build_segmenter
from medsegdiff.engine.segmentation import Segmentation, Segmenter
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.files import resize_probability
from medsegdiff.masks.metrics import overlap


class Trained:
    """A checkpoint and the first test images of a dataset, evenly spread."""

    def __init__(self, model_path: Path, data_dir: Path, images: int) -> None:
        self.weights = load_weights(model_path, "ema")
        config = self.weights.config
        cases = [case for case in find_inputs(str(data_dir), []) if case.mask]
        chosen = np.unique(np.linspace(0, len(cases) - 1, min(images, len(cases))).round().astype(int))
        cases = [cases[index] for index in chosen]
        self.dataset = prepare(cases, config.network.image_size, mask_resize=config.data.mask_resize)
        self.truths = {case.id: read_mask(case.mask) > 127 for case in cases}
        self._network = build_segmenter(self.weights, SamplingConfig()).network

    def segmenter(self, sampling: SamplingConfig) -> Segmenter:
        """The network with a sampler."""
        return Segmenter(self._network, self.weights.config.diffusion, sampling)

    def segment(self, sampling: SamplingConfig, images: int = 0) -> list[Segmentation]:
        """Segment the first `images` (0: all), in their order."""
        ids = self.dataset.ids[: images or None]
        found = {result.id: result for result in self.segmenter(sampling).segment(ids, self.dataset.image, True)}
        return [found[name] for name in ids]

    def dice(self, name: str, probability: np.ndarray) -> float:
        """Dice of a probability (1, S, S) at the image's own resolution, cut at one half."""
        truth = self.truths[name]
        return overlap(resize_probability(probability[0], truth.shape) > THRESHOLD, truth).dice
