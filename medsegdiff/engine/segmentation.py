"""Segmenting: ensembles of sampled masks, batched over images and members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from medsegdiff.diffusion import samplers
from medsegdiff.diffusion.process import Diffusion, DiffusionConfig, Output
from medsegdiff.engine.config import SamplingConfig
from medsegdiff.masks.fusion import Ensemble
from medsegdiff.nn.network import Condition, MedSegDiff
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.randomness import generator


class Segmentation(NamedTuple):
    """What is known of one image, at network resolution."""

    id: str
    mean: np.ndarray
    """(M, S, S) float32 in [0, 1]: the probability, mean over the members."""
    std: np.ndarray
    """(M, S, S) float32: standard deviation over the members."""
    members: np.ndarray
    """(K, M, S, S) float32 in [0, 1]: the members, where they were asked for; else K = 0."""


def network_denoise(network: MedSegDiff, condition: Condition) -> samplers.Denoise:
    """The denoise function, of NumPy arrays, that samplers see."""

    def denoise(mask_t: np.ndarray, t: float) -> Output:
        times = jt.array(np.full(len(mask_t), t, np.float32))
        with jt.no_grad():
            prediction = network.denoise(jt.array(mask_t), times, condition)
            jt.sync([value for value in prediction if value is not None])
        return Output(*(None if value is None else value.numpy() for value in prediction))

    return denoise


class Segmenter:
    """A network in evaluation mode with a sampler."""

    def __init__(self, network: MedSegDiff, diffusion: DiffusionConfig, sampling: SamplingConfig) -> None:
        network.eval()
        self.network, self.sampling = network, sampling
        solver = sampling.sampler == "dpm++"
        self.diffusion = Diffusion(diffusion, "" if solver else sampling.spacing(diffusion.diffusion_steps))
        self.evaluations = sampling.steps if solver and sampling.steps else len(self.diffusion)

    def encode(self, images: np.ndarray) -> Condition:
        """What depends on the images (N, C, S, S) alone."""
        with jt.no_grad():
            condition = self.network.encode(jt.array(images))
            jt.sync([value for value in vars(condition).values() if value is not None])
        return condition

    def states(self, condition: Condition, ids: Sequence[str], members: Sequence[int]) -> Iterator[samplers.State]:
        """Sample one mask for each row of `condition`, drawn by (seed, id, member) alone."""
        config = self.network.config
        shape = (config.mask_channels, config.image_size, config.image_size)

        def noise(draw: int) -> np.ndarray:
            streams = (generator(self.sampling.seed, "mask", i, m, draw) for i, m in zip(ids, members))
            return np.stack([stream.standard_normal(shape, np.float32) for stream in streams])

        denoise = network_denoise(self.network, condition)
        if self.sampling.sampler == "ddpm":
            return samplers.ddpm(denoise, self.diffusion, noise)
        if self.sampling.sampler == "ddim":
            return samplers.ddim(denoise, self.diffusion, noise, self.sampling.eta)
        return samplers.dpm_solver_pp(denoise, self.diffusion, noise, self.evaluations)

    def segment(
        self,
        ids: Sequence[str],
        image: Callable[[int], np.ndarray],
        keep_members: bool = False,
        progress: Optional[Callable[[int], Any]] = None,
    ) -> Iterator[Segmentation]:
        """Segment images one group after another; each is encoded once.

        Args:
            ids: the images' names
            image: gives image i as float32 (C, S, S) in [0, 1]
            keep_members: keep every member's mask
            progress: called with the number of masks advanced by one step
        """
        members, limit = self.sampling.members, self.sampling.batch_size
        group = max(1, limit // members)
        for start in range(0, len(ids), group):
            names = list(ids[start : start + group])
            condition = self.encode(np.stack([image(start + row) for row in range(len(names))]))
            ensembles = [Ensemble() for _ in names]
            kept: list[list[np.ndarray]] = [[] for _ in names]
            pairs = [(row, member) for row in range(len(names)) for member in range(members)]
            for first in range(0, len(pairs), limit):
                rows, numbers = zip(*pairs[first : first + limit])
                masks = self._sample(condition.take(np.array(rows)), [names[row] for row in rows], numbers, progress)
                for row, mask in zip(rows, masks):
                    ensembles[row].add(mask)
                    if keep_members:
                        kept[row].append(mask)
            for name, ensemble, own in zip(names, ensembles, kept):
                yield Segmentation(name, ensemble.mean, ensemble.std, np.array(own, np.float32))

    def _sample(
        self,
        condition: Condition,
        ids: Sequence[str],
        members: Sequence[int],
        progress: Optional[Callable[[int], Any]],
    ) -> np.ndarray:
        x = np.empty(0, np.float32)
        for state in self.states(condition, ids, members):
            x = state.x
            if progress is not None:
                progress(len(ids))
        return np.clip(x, 0, 1)
