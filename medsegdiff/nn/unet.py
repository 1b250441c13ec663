"""The denoiser, a U-Net: encode an image once, denoise its mask at every step. Versions differ in what guides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.kernels.operations import device
from medsegdiff.nn import functional as F
from medsegdiff.nn.blocks import AttentionBlock, Downsample, ResBlock, Stage, Upsample
from medsegdiff.nn.layers import Conv2d, Convolution, DropoutStreams, Embedding, GroupNorm, Linear, SiLU
from medsegdiff.runtime.backend import Var, jt, nn


class NetworkOutput(NamedTuple):
    """What the network says of a noisy mask."""

    target: Var
    """(N, M, S, S): the predicted noise, clean mask or v: what it was trained for."""
    variance: Optional[Var]
    """(N, M, S, S): the variance value v, in [-1, 1] when trained well; None if not learned."""
    cal: Var
    """(N, M, S, S) in [0, 1]: the mask of the conditioning network."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What depends on the image alone: computed once, shared by all steps and ensemble members.

    Each version adds what it needs. The first axis of every array is the batch.
    """

    stem: Var
    """(N, c, S, S): what the image adds to the first convolution, with its bias."""
    label: Optional[Var]
    """(N, 4 c): the embedded class label."""

    @classmethod
    def join(cls, parts: Sequence[Condition]) -> Condition:
        """The condition of all the parts' rows, in order."""
        columns = zip(*([getattr(part, field.name) for field in dataclasses.fields(part)] for part in parts))
        return type(parts[0])(*(None if column[0] is None else jt.concat(list(column), dim=0) for column in columns))

    def take(self, index: Sequence[int]) -> Condition:
        """The condition of a batch made of the rows `index`, which may repeat."""
        rows = jt.array(np.asarray(index, np.int32))
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return type(self)(*(None if value is None else value[rows] for value in values))


class MedSegDiff(nn.Module):
    """The conditional denoiser (MedSegDiff, Wu et al. 2023; MedSegDiff-V2, Wu et al. 2024); each version is a subclass.

    A version adds `hwm`, its conditioning network, and says what that is given and gives.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.dropout_streams = DropoutStreams()
        width, levels = config.num_channels, config.level_widths
        self.time_embed = nn.Sequential(Linear(width, 4 * width), SiLU(), Linear(4 * width, 4 * width))
        if config.class_cond:
            self.label_emb = Embedding(config.num_label_classes, 4 * width)
        self._build_down(config, levels)
        deepest = levels[-1]
        self.middle_block = Stage(
            ResBlock(config, deepest, deepest, self.dropout_streams),
            AttentionBlock(config, deepest),
            ResBlock(config, deepest, deepest, self.dropout_streams),
        )
        self._build_up(config, levels)
        self.out = nn.Sequential(GroupNorm(levels[0]), SiLU(), Conv2d(levels[0], config.out_channels, 3, init="zero"))

    def _build_down(self, config: NetworkConfig, levels: tuple[int, ...]) -> None:
        width = config.num_channels
        stages = [Stage(Conv2d(config.in_channels, width, 3))]
        self.skip_widths, self.downsamplings = [width], []
        for level, outputs in enumerate(levels):
            for _ in range(config.num_res_blocks):
                layers = [ResBlock(config, width, outputs, self.dropout_streams)]
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, outputs))
                stages.append(Stage(*layers))
                width = outputs
                self.skip_widths.append(width)
            if level < len(levels) - 1:
                halve = (
                    ResBlock(config, width, width, self.dropout_streams, "down")
                    if config.resblock_updown
                    else Downsample(width)
                )
                self.downsamplings.append(len(stages))
                stages.append(Stage(halve))
                self.skip_widths.append(width)
        self.input_blocks = nn.ModuleList(*stages)

    def _build_up(self, config: NetworkConfig, levels: tuple[int, ...]) -> None:
        width, skips, stages = levels[-1], list(self.skip_widths), []
        for level, outputs in reversed(list(enumerate(levels))):
            for block in range(config.num_res_blocks + 1):
                layers = [ResBlock(config, width + skips.pop(), outputs, self.dropout_streams)]
                width = outputs
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, outputs, upsample=True))
                if level and block == config.num_res_blocks:
                    layers.append(
                        ResBlock(config, width, width, self.dropout_streams, "up")
                        if config.resblock_updown
                        else Upsample(width)
                    )
                stages.append(Stage(*layers))
        self.output_blocks = nn.ModuleList(*stages)

    def initialise(self, seed: int = 0) -> MedSegDiff:
        """Draw the initial weights: functions of the seed and of each parameter's name."""
        for name, module in self.named_modules():
            if hasattr(module, "reset"):
                module.reset(generator(seed, "init", name))
        return self

    def only_segment(self) -> MedSegDiff:
        """From now on, and in the precision in use: on a CPU, convolutions give up the weights that they pack."""
        for module in self.modules() if device().PACKS else []:
            if isinstance(module, Convolution) and module is not self.input_blocks[0][0]:  # which is used in parts
                module.give_up_weight()
        jt.sync_all()  # what waits to be made of weights would hold them beside what is packed
        return self

    def encode(self, image: Var, label: Optional[Var] = None) -> Condition:
        """What the denoiser needs of an image, once per image.

        Args:
            image: (N, C, S, S) float32 in [0, 1]
            label: (N,) integers, with class conditioning
        """
        if (label is not None) != self.config.class_cond:
            raise ValueError("a label goes with class conditioning, and only with it")
        return self._condition(image, None if label is None else self.label_emb(label))

    def denoise(self, mask_t: Var, t: Var, condition: Condition) -> NetworkOutput:
        """Predict the noise in a mask.

        Args:
            mask_t: (N, M, S, S) noisy mask
            t: (N,) timesteps as the network was trained with, possibly fractional
            condition: from `encode`
        """
        embedding = self._embed(t, condition.label)
        first, mask = self.input_blocks[0][0], slice(self.config.seen_channels, None)
        h = first.part(mask_t, mask, biased=False, residual=condition.stem)
        skips = []
        for index, stage in enumerate(self.input_blocks):
            h = self._anchored(stage(h, embedding) if index else h, index, condition)
            skips.append(h)
        h, cal = self._guide(h, skips, t, embedding, condition)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(h, embedding, skips.pop())
        norm, _, conv = self.out
        out = conv(h, norm=norm.of(silu=True))
        if not self.config.learn_sigma:
            return NetworkOutput(out, None, cal)
        target, variance = jt.chunk(out, 2, dim=1)
        return NetworkOutput(target, variance, cal)

    def _condition(self, image: Var, label: Optional[Var]) -> Condition:
        """This version's condition of images (N, C, S, S) and their embedded labels (N, 4 c)."""
        raise NotImplementedError

    def _anchored(self, h: Var, index: int, condition: Condition) -> Var:
        """The map `h` after the stage `index` of the contracting path, with what the image says of it."""
        return h

    def _guide(self, h: Var, skips: Sequence[Var], t: Var, embedding: Var, condition: Condition) -> tuple[Var, Var]:
        """The deepest map as it goes on, and the conditioning network's mask (N, M, S, S).

        Args:
            h: (N, deepest width, S', S')
            skips: the maps after each stage
            t: (N,) timesteps
            embedding: (N, 4 c), of the timesteps and labels, after SiLU
            condition: from `encode`
        """
        raise NotImplementedError

    def _stem(self, image: Var, anchor: Optional[Var] = None) -> Var:
        """What `image` adds to the first convolution, with its bias and the `anchor` (N, c, S, S)."""
        channels = slice(self.config.seen_channels)
        return self.input_blocks[0][0].part(image, channels, biased=True, residual=anchor)

    def _embed(self, t: Var, label: Optional[Var] = None) -> Var:
        """What all blocks take of the timesteps (N,) and the embedded label: (N, 4 c), after SiLU."""
        rows = t.shape[0]
        if rows == 1:  # Jittor's fused loops round a single row differently: there is none
            t = jt.concat([t] * 2, dim=0)
            label = None if label is None else jt.concat([label] * 2, dim=0)
        embedding = self.time_embed(F.timestep_embedding(t, self.config.num_channels))
        embedding = SiLU()(embedding if label is None else embedding + label)
        return embedding[:1] if rows == 1 else embedding

    def execute(self, image: Var, mask_t: Var, t: Var, label: Optional[Var] = None) -> NetworkOutput:
        """`encode` and `denoise` in one."""
        return self.denoise(mask_t, t, self.encode(image, label))
