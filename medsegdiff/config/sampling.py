"""The options of sampling."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Optional, Union, get_args

from medsegdiff.base.bounds import SEEDS, bounded, check_bounds, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.config.choices import Precision
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.diffusion.schedule import respace

Sampler = Literal["ddpm", "ddim", "dpm++", "sde-dpm++"]
Fusion = Literal["mean", "vote", "staple", "published"]
Control = Literal["", "shuffle-noise", "no-noise"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
# Axes of (C, S, S) that are mirrored for each member in turn, where --tta is given.
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
_MOST_MEMBERS = 9999
_MASK_STEPS, _NOISE_STEPS = 3, 25  # the default for networks that predict the clean mask or v, or the noise


@dataclass(frozen=True)
class SamplingConfig:
    """How to sample.

    Args:
        sampler: ancestral, implicit, or DPM-Solver++(2M) as ODE or SDE
        steps: network evaluations per mask; 0: all steps of the training schedule; default: 3, or 25 if the network
            predicts the noise, not the mask
        timestep_respacing: which steps to visit, such as "25", "10,15,20" or "ddim25"; overrides `steps`
        eta: noise of ddim, from 0 (deterministic) to 1
        threshold: quantile for the dynamic thresholding of dpm++ and sde-dpm++ (published: 0.995); 0: clip, as the
            other samplers do
        members: masks sampled for each image; 3..25: from 3 to 25, until the mean mask has settled
        until: with a range of `members`, stop when the mean mask's standard error, relative to its area, is at most
            this
        fusion: how members become one mask; published: the mean squared
        blend: blend each sampled mask with the conditioning network's, as published
        tta: test-time augmentation: sample members in turn from the image as it is, mirrored left-right, top-bottom
            and both, and mirror them back; best if `members` is a multiple of 4
        postprocess: keep only the largest region of each class in the mask, and fill its holes; the probability stays
            as it is
        control: for experiments: give every image another image's noise, or no noise
        batch_size: masks sampled at once, images and members together
        seed: seed of all noise
        precision: number format of convolutions and attention
    """

    sampler: Sampler = "ddpm"
    steps: Optional[int] = bounded(None, 0, 100000)
    timestep_respacing: str = ""
    eta: float = bounded(0.0, 0, 1)
    threshold: float = bounded(0.0, 0, 1)
    members: Union[int, str] = 5
    until: float = bounded(0.05, 0, 1)
    fusion: Fusion = "mean"
    blend: bool = False
    tta: bool = False
    postprocess: bool = False
    control: Control = ""
    batch_size: int = bounded(15, 1, 65536)
    seed: int = bounded(0, *SEEDS)
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_fields(self)
        least, most = self.member_range
        if least == most:
            object.__setattr__(self, "members", least)  # a number however it is written: masks are told apart by it
        if self.tta and least < len(FLIPS):
            raise InputError(
                f"`tta`: needs a member for each of the {len(FLIPS)} flips of an image, but `members` is "
                f"{self.members}; give at least {len(FLIPS)}, or ranges from there"
            )
        if not self.until > 0:
            raise InputError(f"`until` {self.until}: must be above 0")
        if self.continuous and self.timestep_respacing:
            raise InputError(
                f"`timestep_respacing`: has no effect with {self.sampler}, which steps evenly in time; use `steps`"
            )
        for name, fits, what in (
            ("eta", self.sampler == "ddim", "`sampler` ddim"),
            ("threshold", self.continuous, "`sampler` dpm++ and sde-dpm++"),
            ("until", ".." in str(self.members), 'a range of `members`, as "3..25",'),
        ):
            if not fits and (value := getattr(self, name)) != getattr(SamplingConfig, name):
                raise InputError(f"`{name}` {value}: has an effect with {what} only")

    @property
    def continuous(self) -> bool:
        """Whether the sampler steps in continuous time, not along the training schedule."""
        return self.sampler in ("dpm++", "sde-dpm++")

    @property
    def member_range(self) -> tuple[int, int]:
        """The least and the largest number of masks for an image.

        Raises:
            InputError: it is neither a number nor a range.
        """
        least, dots, most = str(self.members).partition("..")
        try:  # of thousands of digits int says that it is no number
            ends = int(least), int(most if dots else least)
        except ValueError:
            ends = 0, 0
        if not 1 <= ends[0] <= ends[1] or (dots and ends[0] < 2):
            raise InputError(
                f'`members` {self.members}: must be a number from 1, or a range from at least 2, as "3..25"'
            )
        check_bounds("`members`", ends[1], 1, _MOST_MEMBERS)
        return ends

    def resolved(self, diffusion: DiffusionConfig) -> SamplingConfig:
        """The same with `steps` the network evaluations that a mask takes (the default: docs/sampling.md).

        Raises:
            InputError: more steps are asked for than there are, or the respacing does not fit.
        """
        trained = diffusion.diffusion_steps
        if self.timestep_respacing:
            steps = len(respace(trained, self.timestep_respacing))
        elif self.steps is None:
            steps = min(_NOISE_STEPS if diffusion.target == "noise" else _MASK_STEPS, trained)
        else:
            steps = self.steps or trained
        if steps > trained and not self.continuous:
            raise InputError(f"`steps` {steps}: the model was trained with {trained} steps; use at most those")
        return dataclasses.replace(self, steps=steps)

    def spacing(self, diffusion: DiffusionConfig) -> str:
        """The respacing of the training schedule; empty where all its steps are visited, or none in particular."""
        steps = self.resolved(diffusion).steps
        if self.continuous or steps == diffusion.diffusion_steps:
            return ""
        return self.timestep_respacing or str(steps)
