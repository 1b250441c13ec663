"""The whole network: encode an image once, denoise its mask at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn import functional as F
from medsegdiff.nn.highway import Highway
from medsegdiff.nn.layers import Conv2d, Convolution, DropoutStreams, Embedding, GroupNorm, Linear, SiLU
from medsegdiff.nn.unet import AttentionBlock, Downsample, ResBlock, Stage, Upsample
from medsegdiff.runtime.backend import jt, nn

Var = Any  # jt.Var


class NetworkOutput(NamedTuple):
    """What the network says of a noisy mask."""

    target: Var
    """(N, M, S, S): the predicted noise, or the clean mask when trained so."""
    variance: Optional[Var]
    """(N, M, S, S): the variance value v, in [-1, 1] when trained well; None if not learned."""
    cal: Var
    """(N, M, S, S) in [0, 1]: the conditioning network's mask."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What depends on the image alone: computed once, shared by all steps and ensemble members.

    The first axis of every array is the batch.
    """

    stem: Var
    """(N, c, S, S): the image's part of the first convolution, its bias and the anchor."""
    cal: Optional[Var] = None
    """(N, M, S, S), version "new"."""
    image: Optional[Var] = None
    """(N, C, S, S), version "v1", whose conditioning network sees the noisy mask."""
    label: Optional[Var] = None
    """(N, 4 c): the embedded class label."""

    @classmethod
    def join(cls, parts: Sequence[Condition]) -> Condition:
        """The condition of all the parts' rows, in order."""
        columns = zip(*([getattr(part, field.name) for field in dataclasses.fields(cls)] for part in parts))
        return cls(*(None if values[0] is None else jt.concat(list(values), dim=0) for values in columns))

    def take(self, index: Sequence[int]) -> Condition:
        """The condition of a batch made of the rows `index`, which may repeat."""
        rows = jt.array(np.asarray(index, np.int32))
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Condition(*(None if value is None else value[rows] for value in values))


class MedSegDiff(nn.Module):
    """The conditional denoiser (MedSegDiff, Wu et al. 2023; MedSegDiff-V2, Wu et al. 2024)."""

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
        self.hwm = Highway(config, self.dropout_streams)

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

    def narrow(self) -> MedSegDiff:
        """From now on only segment in bf16: on a CPU, convolutions give up the float32 weights that they pack."""
        for module in [] if jt.flags.use_cuda else self.modules():
            if isinstance(module, Convolution) and module is not self.input_blocks[0][0]:  # which is used in parts
                module.narrow()
        return self

    def encode(self, image: Var, label: Optional[Var] = None) -> Condition:
        """What the denoiser needs of an image, once per image.

        Args:
            image: (N, C, S, S) float32 in [0, 1]
            label: (N,) integers, with class conditioning
        """
        first = self.input_blocks[0][0]
        channels = slice(self.config.image_channels)
        if (label is not None) != self.config.class_cond:
            raise ValueError("a label goes with class conditioning, and only with it")
        embedded = None if label is None else self.label_emb(label)
        if self.config.version == "v1":
            return Condition(first.part(image, channels, biased=True), image=image, label=embedded)
        seen = self.hwm(image)
        stem = first.part(image, channels, biased=True, residual=seen.anchor)
        return Condition(stem, cal=seen.cal, label=embedded)

    def denoise(self, mask_t: Var, t: Var, condition: Condition) -> NetworkOutput:
        """Predict the noise in a mask.

        Args:
            mask_t: (N, M, S, S) noisy mask
            t: (N,) timesteps as the network was trained with, possibly fractional
            condition: from `encode`
        """
        if self.is_training() or jt.flags.use_cuda or self.config.version == "new":
            return self._denoise(mask_t, t, condition)
        # One by one: version "v1" rounds differently in batches of other sizes.
        parts = []
        for row in range(mask_t.shape[0]):
            part = self._denoise(mask_t[row : row + 1], t[row : row + 1], condition.take([row]))
            jt.sync([value for value in part if value is not None])
            parts.append(part)
        return NetworkOutput(*(None if values[0] is None else jt.concat(values, dim=0) for values in zip(*parts)))

    def _denoise(self, mask_t: Var, t: Var, condition: Condition) -> NetworkOutput:
        embedding = self._embed(t, condition.label)
        first = self.input_blocks[0][0]
        h = first.part(mask_t, slice(self.config.image_channels, None), biased=False, residual=condition.stem)
        skips = [h]
        for stage in list(self.input_blocks)[1:]:
            h = stage(h, embedding)
            skips.append(h)
        cal = condition.cal
        if condition.image is not None:
            seen = self.hwm(condition.image, [skips[index] for index in self.downsamplings])
            cal = seen.cal
            h = h + self._to_bottleneck(seen.bottleneck, h.shape[2])
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(h, embedding, skips.pop())
        norm, _, conv = self.out
        out = conv(norm(h, silu=True))
        if not self.config.learn_sigma:
            return NetworkOutput(out, None, cal)
        target, variance = jt.chunk(out, 2, dim=1)
        return NetworkOutput(target, variance, cal)

    def _embed(self, t: Var, label: Optional[Var]) -> Var:
        """What the residual blocks take of the timesteps (N,) and the embedded label: (at least N, 4 c)."""
        if t.shape[0] == 1:  # Jittor's fused loops round a single row differently: there is none
            t = jt.concat([t] * 2, dim=0)
            label = None if label is None else jt.concat([label] * 2, dim=0)
        embedding = self.time_embed(F.timestep_embedding(t, self.config.num_channels))
        return embedding if label is None else embedding + label

    @staticmethod
    def _to_bottleneck(x: Var, size: int) -> Var:
        """Resize the conditioning bottleneck where the denoiser is shallower than five halvings."""
        while x.shape[2] > size:
            x = F.average_pool(x)
        return x if x.shape[2] == size else F.upsample_bilinear(x, size // x.shape[2])

    def execute(self, image: Var, mask_t: Var, t: Var, label: Optional[Var] = None) -> NetworkOutput:
        """`encode` and `denoise` in one."""
        return self.denoise(mask_t, t, self.encode(image, label))
