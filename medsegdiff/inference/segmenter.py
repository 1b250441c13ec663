"""Segmenting: ensembles of sampled masks, batched over images and members.

Of the network it knows the `Denoiser` alone, and so nothing of Jittor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional, Union

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.config.sampling import FLIPS, SamplingConfig
from medsegdiff.diffusion import samplers
from medsegdiff.diffusion.process import Diffusion, DiffusionConfig, Output
from medsegdiff.inference.denoiser import Condition, Denoiser
from medsegdiff.masks.fusion import Ensemble, published_blend

OnStep = Callable[[Sequence[str], Sequence[int], samplers.State], None]
"""Called after each network evaluation with the image's id and the member's number of every row, and the state."""


class ImageResult(NamedTuple):
    """What is known of one image, at network resolution."""

    index: int
    """The image's place among those given."""
    id: str
    probability: np.ndarray
    """(M, S, S) float32 in [0, 1]: the fused members."""
    std: np.ndarray
    """(M, S, S) float32: standard deviation over the members."""
    cal: np.ndarray
    """(M, S, S) float32 in [0, 1]: the conditioning network's own mask, the mean over members where it depends on
    them (version "v1", or `tta`)."""
    count: int
    """How many members there are."""
    empty: int
    """How many of them have no foreground at all."""
    agreement: Optional[float]
    """Expected Dice of two members, two empty ones being alike; None for a single one."""
    members: np.ndarray
    """(K, M, S, S) float32 in [0, 1]: the members, where they were asked for; else K = 0."""


class _Image:
    """An image in progress: its members are sampled in any batch, and added in order."""

    def __init__(
        self, index: int, id: str, conditions: Sequence[Condition], sampling: SamplingConfig, keep: bool
    ) -> None:
        self.index, self.id, self.sampling = index, id, sampling
        self.conditions = conditions  # of one row each: one for every flip
        self.ensemble = Ensemble()
        self.cal: Union[np.ndarray, float] = 0.0  # the sum
        self.kept: Optional[list[np.ndarray]] = [] if keep else None
        self.handed = 0
        self.done = False

    def wanted(self) -> int:
        """How many more members to sample now, by what is known.

        The standard error falls with the root of their number, which tells how many are likely to be needed.
        """
        least, most = self.sampling.member_range
        enough = least
        if self.ensemble.count >= least and not self.done:
            ratio = min(self.ensemble.unsettled / self.sampling.until, most)
            enough = min(max(math.ceil(self.ensemble.count * ratio**2), self.ensemble.count + 1), most)
        return max(enough - self.handed, 0)

    def take(self, mask: np.ndarray, cal: np.ndarray) -> None:
        """Take in the next member; what comes after the image is done is left out."""
        if self.done:
            return
        self.ensemble.add(mask)
        self.cal = self.cal + cal.astype(np.float64)
        if self.kept is not None:
            self.kept.append(mask)
        least, most = self.sampling.member_range
        count = self.ensemble.count
        self.done = count == most or (count >= least and self.ensemble.unsettled <= self.sampling.until)

    def result(self) -> ImageResult:
        """The members' joint result."""
        ensemble = self.ensemble
        return ImageResult(
            self.index,
            self.id,
            ensemble.fuse(self.sampling.fusion),
            ensemble.std,
            np.float32(self.cal / ensemble.count),
            ensemble.count,
            ensemble.empty,
            ensemble.agreement,
            np.array(self.kept or (), np.float32),
        )


class BatchSegmenter:
    """A network with a sampler."""

    def __init__(self, denoiser: Denoiser, diffusion: DiffusionConfig, sampling: SamplingConfig) -> None:
        self.denoiser = denoiser
        self.sampling = sampling = sampling.resolved(diffusion)
        self.diffusion = Diffusion(diffusion, sampling.spacing(diffusion))
        self.evaluations: int = sampling.steps
        """Of the network, for each mask."""
        self.flips = FLIPS if sampling.tta else FLIPS[:1]

    def states(
        self, condition: Condition, noise_ids: Sequence[str], members: Sequence[int], names: Sequence[str] = ()
    ) -> Iterator[samplers.State]:
        """Sample one mask for each row of `condition`; its noise is named by (seed, id, member) alone.

        `names` are the images', where they are others than `noise_ids`.

        Raises:
            InputError: the network predicts what is not finite.
        """
        sampling, shape = self.sampling, self.denoiser.mask_shape

        def noise(draw: int) -> np.ndarray:
            if sampling.control == "no-noise":
                return np.zeros((len(members), *shape), np.float32)
            streams = (generator(sampling.seed, "mask", i, m, draw) for i, m in zip(noise_ids, members))
            return np.stack([stream.standard_normal(shape, np.float32) for stream in streams])

        def denoise(mask_t: np.ndarray, t: float) -> Output:
            output = self.denoiser.denoise(mask_t, t, condition)
            self._check_finite(output, names or noise_ids)
            return output

        if sampling.sampler == "ddpm":
            return samplers.ddpm(denoise, self.diffusion, noise)
        if sampling.sampler == "ddim":
            return samplers.ddim(denoise, self.diffusion, noise, sampling.eta)
        return samplers.dpm_solver_pp(
            denoise,
            self.diffusion,
            noise,
            self.evaluations,
            threshold=sampling.threshold,
            stochastic=sampling.sampler == "sde-dpm++",
        )

    def _check_finite(self, output: Output, names: Sequence[str]) -> None:
        """Refuse what makes no mask; `names` are those of the rows' images."""
        broken = [~np.isfinite(value).reshape(len(value), -1).all(axis=1) for value in output if value is not None]
        rows = np.flatnonzero(np.any(broken, axis=0))
        if len(rows):
            remedy = "use another checkpoint" + ("" if self.sampling.precision == "fp32" else ", or `precision` fp32")
            image = f"{names[rows[0]]}: " if names[rows[0]] else ""
            raise InputError(f"{image}what the network predicts is not finite, which makes no mask; {remedy}")

    def segment(
        self,
        ids: Sequence[str],
        image: Callable[[int], np.ndarray],
        keep_members: bool = False,
        on_step: Optional[OnStep] = None,
        chosen: Optional[Sequence[int]] = None,
    ) -> Iterator[ImageResult]:
        """Segment images in batches of masks; each image is encoded once, or with `tta` once for each of its flips.

        A batch takes the members that the images at hand want, then opens the next image. An image's result
        depends on its own members alone; an image that has settled early comes early.

        Args:
            ids: the images' names, from which the noise of each is drawn; those of one name have the same
            image: gives image i as float32 (C, S, S) in [0, 1]
            keep_members: keep every member's mask
            on_step: is told of every network evaluation
            chosen: the images to segment, by their place among `ids`; None: all

        Raises:
            InputError: noise is to be shuffled and there is one image only, `on_step` is no function, or the network
                predicts what is not finite.
        """
        if on_step is not None and not callable(on_step):
            raise InputError(f"on_step: a {type(on_step).__name__}; give a function, or None")
        noise_of = self._noise_names(ids)
        waiting = iter([(index, ids[index]) for index in (range(len(ids)) if chosen is None else chosen)])
        images: list[_Image] = []
        while True:
            rows = self._fill(images, waiting, image, keep_members)
            if not rows:
                return
            self._sample(rows, noise_of, on_step)
            yield from (ready.result() for ready in images if ready.done)
            images = [other for other in images if not other.done]

    def _noise_names(self, ids: Sequence[str]) -> dict[str, str]:
        if self.sampling.control != "shuffle-noise":
            return {name: name for name in ids}
        if len(ids) < 2:
            raise InputError("`control` shuffle-noise: gives an image another's noise; segment at least two")
        names = sorted(ids)
        return dict(zip(names, names[1:] + names[:1]))

    def _fill(
        self,
        images: list[_Image],
        waiting: Iterator[tuple[int, str]],
        image: Callable[[int], np.ndarray],
        keep_members: bool,
    ) -> list[tuple[_Image, int]]:
        """The (image, member) pairs of the next batch; images that it opens are appended to `images`."""
        rows: list[tuple[_Image, int]] = []

        def hand_out(chosen: _Image) -> None:
            for _ in range(min(chosen.wanted(), self.sampling.batch_size - len(rows))):
                rows.append((chosen, chosen.handed))
                chosen.handed += 1

        for opened in images:
            hand_out(opened)
        while len(rows) < self.sampling.batch_size:
            index, name = next(waiting, (-1, ""))
            if index < 0:
                break
            pixels = image(index)
            flipped = [np.ascontiguousarray(np.flip(pixels, axes)) for axes in self.flips]
            # One at a time: the features are then the same whatever they are batched with later.
            conditions = [self.denoiser.encode(one[None]) for one in flipped]
            images.append(_Image(index, name, conditions, self.sampling, keep_members))
            hand_out(images[-1])
        return rows

    def _sample(self, rows: list[tuple[_Image, int]], noise_of: dict[str, str], on_step: Optional[OnStep]) -> None:
        chosen, flips = list({id(one): one for one, _ in rows}.values()), len(self.flips)
        first = {id(one): position * flips for position, one in enumerate(chosen)}
        condition = self.denoiser.gather(
            [part for one in chosen for part in one.conditions],
            [first[id(one)] + member % flips for one, member in rows],
        )
        names, members = [one.id for one, _ in rows], [member for _, member in rows]
        states = self.states(condition, [noise_of[name] for name in names], members, names)
        last = samplers.final(states, on_step and (lambda state: on_step(names, members, state)))
        for row, (one, member) in enumerate(rows):
            x, cal = (np.flip(array[row], self.flips[member % flips])[None] for array in (last.x, last.cal))
            mask = published_blend(cal, x) if self.sampling.blend else np.clip(x, 0, 1)
            one.take(mask[0], cal[0])
