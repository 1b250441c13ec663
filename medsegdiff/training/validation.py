"""Validation while training: held-out images segmented in few steps, their Dice, and a picture of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image

from medsegdiff.base import ranks
from medsegdiff.base.ownership import Ledger
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.loader import Dataset
from medsegdiff.data.splits import groups_of
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.masks.decision import decide
from medsegdiff.masks.metrics import overlap
from medsegdiff.nn import weights
from medsegdiff.nn.versions import build_network
from medsegdiff.plots.overlay import overlay
from medsegdiff.runtime.backend import Var
from medsegdiff.training.run_folder import SAMPLES

_PANEL = 128  # pixels; smaller images are drawn larger, so that outlines can be seen
_GAP = 4
_SHOWN = 16


@dataclass
class Progress:
    """How validation went so far."""

    last: int = 0
    """The step of the last one."""
    best: float = -1.0
    """The best Dice; -1: there is none yet."""
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""

    def take(self, step: int, dice: float) -> bool:
        """Note a validation; whether it is the best so far."""
        self.last, self.stale = step, self.stale + 1
        if not dice > self.best:
            return False
        self.best, self.best_step, self.stale = dice, step, 0
        return True


class Outcome(NamedTuple):
    """One validation."""

    dice: float
    """The mean over patients, or images, and classes, at network resolution."""
    picture: np.ndarray
    """uint8 (H, W, 3): image by image the outlines of mask (blue) and ground truth (yellow), and the probability."""


class Abandoned(Exception):
    """A validation was asked to stop."""


class Validator:
    """Segments the same images with the same noise each time, by DDIM with one mask an image.

    It does so with a network of its own, which shares the arrays of the weights it is given: the network in training,
    its random streams and its running statistics stay as they are.
    """

    def __init__(self, config: RunConfig, dataset: Dataset) -> None:
        training = config.training
        self.config, self.dataset = config, dataset
        batch = training.microbatch if training.microbatch > 0 else training.batch_size
        self.sampling = SamplingConfig(
            sampler="ddim",
            steps=config.validation.val_steps,
            members=1,
            batch_size=max(1, batch // ranks.count()),  # one process computes alone what fits it in training
            seed=training.seed,
            precision=training.precision,
        )

    def __call__(self, state: Mapping[str, Var], abandon: Callable[[], bool] = lambda: False) -> Outcome:
        """Segment with the weights `state`; `abandon` is asked at every network evaluation.

        Raises:
            Abandoned: `abandon` said so.
        """
        network = build_network(self.config.network)
        for name, value in weights.state(network).items():
            value.assign(state[name].detach())  # the same memory, which the next step overwrites
        denoiser = JittorDenoiser(network, self.sampling.precision)
        segmenter = BatchSegmenter(denoiser, self.config.diffusion, self.sampling)

        def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
            if abandon():
                raise Abandoned

        found = {
            result.id: result.probability
            for result in segmenter.segment(self.dataset.ids, self.dataset.image, on_step=on_step)
        }
        panels, patients = [], defaultdict(list)
        for index, (name, group) in enumerate(zip(self.dataset.ids, groups_of(self.dataset))):
            truth = self.dataset.mask(index)
            patients[group].append((decide(found[name]), truth > 0.5))
            if index < _SHOWN:
                panels.append(_panel(self.dataset.image(index), found[name], truth))
        return Outcome(float(np.mean([dice(slices) for slices in patients.values()])), _grid(panels))


def dice(slices: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Dice over all slices of a patient, the mean over the classes that occur in mask or ground truth; 1 without any.

    Args:
        slices: of each the mask, class indices (S, S), and the ground truth, bool (M, S, S)
    """
    decided, true = (np.stack(arrays) for arrays in zip(*slices))
    scores = [overlap(decided == k + 1, true[:, k]).dice for k in range(true.shape[1])]
    occurring = [(decided == k + 1).any() or true[:, k].any() for k in range(true.shape[1])]
    return float(np.mean([score for score, occurs in zip(scores, occurring) if occurs] or [1.0]))


def _panel(image: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """uint8 (H, 2 W + a gap, 3) of an image (C, S, S) in [0, 1]; classes are drawn together."""
    factor = math.ceil(_PANEL / image.shape[1])
    pixels = np.round(255 * image[[0, 1, 2] if len(image) >= 3 else [0, 0, 0]].transpose(1, 2, 0)).astype(np.uint8)
    mask = (decide(probability) > 0).astype(np.float32)
    outlined, shown = (np.kron(a, np.ones((factor, factor), a.dtype)) for a in (mask, probability.max(axis=0)))
    true = np.kron(truth.max(axis=0) > 0.5, np.ones((factor, factor), bool))
    pixels = np.asarray(Image.fromarray(pixels).resize(true.shape[::-1], Image.Resampling.BICUBIC))
    grey = np.repeat(np.round(255 * shown).astype(np.uint8)[..., None], 3, axis=2)
    gap = np.full((len(grey), _GAP, 3), 255, np.uint8)
    return np.concatenate([overlay(pixels, outlined, true), gap, grey], axis=1)


def _grid(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels (h, w, 3) of one size, row by row in a picture about as wide as high, white between."""
    height, width = panels[0].shape[:2]
    columns = min(len(panels), max(1, round(math.sqrt(len(panels) * height / width))))
    rows = math.ceil(len(panels) / columns)
    picture = np.full((rows * (height + _GAP) - _GAP, columns * (width + 3 * _GAP) - 3 * _GAP, 3), 255, np.uint8)
    for index, panel in enumerate(panels):
        y, x = index // columns * (height + _GAP), index % columns * (width + 3 * _GAP)
        picture[y : y + height, x : x + width] = panel
    return picture


def write_picture(ledger: Ledger, step: int, picture: np.ndarray) -> None:
    """Write `picture` as `samples/step-NNNNNN.png` into a run's folder.

    Raises:
        InputError: the disk is full or read-only, or such a file is not training's own.
    """
    name = f"{SAMPLES}/step-{step:06d}.png"
    with ledger.together(name) as stage:
        (stage / SAMPLES).mkdir()
        Image.fromarray(picture).save(stage / name)
