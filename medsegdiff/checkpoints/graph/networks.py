"""The networks as operations: one walk gives the weights' names and shapes and, with `onnx`, a graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np

from medsegdiff.checkpoints.graph.builder import Builder, Value
from medsegdiff.checkpoints.graph.layers import EPS, Layers, Map
from medsegdiff.config.network import NetworkConfig

STAGES = 5


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a network by its published name."""
    builder = Builder()
    walk = walk_through(config, builder)
    walk.denoise("", "", walk.encode("", ""))
    return builder.shapes


def walk_through(config: NetworkConfig, builder: Builder) -> Walk:
    """The walk through the network of these options."""
    from medsegdiff.checkpoints.graph.spectrum import SpectrumWalk

    walks = {"new": AnchorWalk, "v1": DynamicWalk, "v2": SpectrumWalk}
    return walks[config.version](builder, config)


class Walk(Layers):
    """What all versions have in common; each says what it takes of the image, and how that guides the denoiser."""

    def condition(self, image: Map) -> dict[str, Value]:
        """What this version's `denoise` needs of images, by name."""
        raise NotImplementedError

    def anchored(self, h: Map, stage: int, condition: dict[str, Value]) -> Map:
        """The map after a stage of the contracting path, with what the image says of it."""
        return h

    def guide(self, h: Map, halved: list[Map], condition: dict[str, Value]) -> tuple[Map, dict[str, Value]]:
        """The deepest map as it goes on, given those after each downsampling, and further outputs by name."""
        return h, {}

    def encode(self, image: Value, label: Value) -> dict[str, Value]:
        """What depends on the image (N, C, S, S) and, with class conditioning, the label (N,) alone, by name."""
        config = self.config
        found = self.condition(Map(image, config.image_channels, config.image_size))
        if config.class_cond:
            shape = (config.num_label_classes, 4 * config.num_channels)
            found["label_embedding"] = self.b.node("Gather", self.b.weight("label_emb.weight", shape), label)
        return found

    def denoise(self, mask_t: Value, t: Value, condition: dict[str, Value]) -> dict[str, Value]:
        """What is said of masks (N, M, S, S) at timesteps (N,), by name."""
        config = self.config
        self._embed(t, condition.get("label_embedding"))
        masks = Map(mask_t, config.mask_channels, config.image_size)
        part = self._first(masks, slice(config.seen_channels, None), biased=False)
        h = part._replace(value=self.b.node("Add", part.value, condition["stem"]))
        h, skips, halved = self._down(h, condition)
        h, found = self.guide(h, halved, condition)
        h = self.residual("middle_block.0", h, h.width)
        h = self.attention("middle_block.1", h)
        h = self.residual("middle_block.2", h, h.width)
        h = self._up(h, skips)
        out = self.conv("out.2", self.silu(self.norm("out.0", h)), config.out_channels)
        if config.learn_sigma:
            halves = [config.mask_channels] * 2
            target, variance = self.b.node("Split", out.value, self.integers(*halves), outputs=2, axis=1)
            return {"target": target, "variance": variance, **found}
        return {"target": out.value, **found}

    def stem(self, image: Map) -> Value:
        """The image's part of the first convolution, with its bias."""
        return self._first(image, slice(self.config.seen_channels), biased=True).value

    def _first(self, x: Map, part: slice, biased: bool) -> Map:
        config, name = self.config, "input_blocks.0.0"
        weight = self.b.weight(f"{name}.weight", (config.num_channels, config.in_channels, 3, 3), part=part)
        bias = [self.b.weight(f"{name}.bias", (config.num_channels,))] if biased else []
        y = self.b.product("Conv", x.value, weight, *bias, kernel_shape=[3, 3], pads=[1] * 4)
        return Map(y, config.num_channels, x.size)

    def _embed(self, t: Value, label: Optional[Value]) -> None:
        width = self.config.num_channels
        half = width // 2
        frequencies = np.exp(-math.log(10000) * np.arange(half) / half).astype(np.float32)
        column = self.b.node("Unsqueeze", t, self.integers(1))
        angles = self.b.node("Mul", column, self.b.constant(frequencies[None]))
        e = self.b.node("Concat", self.b.node("Cos", angles), self.b.node("Sin", angles), axis=1)
        e = self.linear("time_embed.0", e, width, 4 * width)
        e = self.linear("time_embed.2", self.swish(e), 4 * width, 4 * width)
        self.embedding = self.time = self.swish(e)  # which all blocks begin with
        if label is not None:
            self.embedding = self.swish(self.b.node("Add", e, label))

    def _down(self, h: Map, condition: dict[str, Value]) -> tuple[Map, list[Map], list[Map]]:
        """The map, all skips, and those after a downsampling."""
        config, halved, stage = self.config, [], 0
        h = self.anchored(h, stage, condition)
        skips = [h]
        for level, width in enumerate(config.level_widths):
            for _ in range(config.num_res_blocks):
                stage += 1
                h = self.residual(f"input_blocks.{stage}.0", h, width)
                if 2**level in config.attention_factors:
                    h = self.attention(f"input_blocks.{stage}.1", h)
                h = self.anchored(h, stage, condition)
                skips.append(h)
            if level < len(config.level_widths) - 1:
                stage += 1
                name = f"input_blocks.{stage}.0"
                h = (
                    self.residual(name, h, width, "down")
                    if config.resblock_updown
                    else self.conv(f"{name}.op", h, width, stride=2)
                )
                h = self.anchored(h, stage, condition)
                skips.append(h)
                halved.append(h)
        return h, skips, halved

    def _up(self, h: Map, skips: list[Map]) -> Map:
        config, stage = self.config, 0
        for level, width in reversed(list(enumerate(config.level_widths))):
            for block in range(config.num_res_blocks + 1):
                name, layer = f"output_blocks.{stage}", 1
                h = self.residual(f"{name}.0", self.join(h, skips.pop()), width)
                if 2**level in config.attention_factors:
                    h = self.attention(f"{name}.1", h, upsample=True)
                    layer = 2
                if level and block == config.num_res_blocks:
                    h = (
                        self.residual(f"{name}.{layer}", h, width, "up")
                        if config.resblock_updown
                        else self.conv(f"{name}.{layer}.conv", self.nearest(h), width)
                    )
                stage += 1
        return h

    def highway(self, x: Map, features: Sequence[Map]) -> tuple[Value, list[Map], Map]:
        """Its mask, what each expanding stage gives, and its bottleneck."""
        base, skips = self.config.num_channels // 4, []
        widths = [min(base * 2**stage, 15 * base) for stage in range(STAGES)]
        for stage, width in enumerate(widths):
            for unit in range(2):
                x = self._unit(f"hwm.conv_blocks_context.{stage}.blocks.{unit}", x, width)
            skips.append(x)
            x = Map(self.b.node("MaxPool", x.value, kernel_shape=[2, 2], strides=[2, 2]), width, x.size // 2)
            if stage < min(len(features), STAGES - 1):
                x = self._inject(stage, x, features[stage])
        for unit in range(2):
            x = self._unit(f"hwm.conv_blocks_context.{STAGES}.{unit}.blocks.0", x, widths[-1])
        bottleneck, expanded = x, []
        for stage, skip in enumerate(reversed(skips)):
            name = f"hwm.conv_blocks_localization.{stage}"
            x = self._unit(f"{name}.0.blocks.0", self.join(self.bilinear(x, 2), skip), skip.width)
            x = self._unit(f"{name}.1.blocks.0", x, widths[max(STAGES - 2 - stage, 0)])
            expanded.append(x)
        seen = self.conv("hwm.seg_outputs.0", x, self.config.mask_channels, 1, bias=False)
        return self.b.node("Sigmoid", seen.value), expanded, bottleneck

    def _unit(self, name: str, x: Map, width: int) -> Map:
        x = self.conv(f"{name}.conv", x, width)
        norm = [
            self.b.weight(f"{name}.instnorm.{part}", (width,))
            for part in ("weight", "bias", "running_mean", "running_var")
        ]
        y = self.b.node("BatchNormalization", x.value, *norm, epsilon=EPS)
        return x._replace(value=self.b.node("LeakyRelu", y, alpha=0.01))

    def _inject(self, stage: int, x: Map, feature: Map) -> Map:
        """The conditioning network's map after a stage, with the denoiser's taken in."""
        raise NotImplementedError


class AnchorWalk(Walk):
    """Version "new"."""

    def condition(self, image: Map) -> dict[str, Value]:
        """See `Walk`."""
        cal, expanded, _ = self.highway(image, [])
        half, quarter = self.bilinear(expanded[3], 2), self.bilinear(expanded[2], 4)
        anchor = self.b.node("Concat", half.value, half.value, quarter.value, axis=1)
        return {"stem": self.b.node("Add", self.stem(image), anchor), "cal": cal}


class DynamicWalk(Walk):
    """Version "v1"."""

    def condition(self, image: Map) -> dict[str, Value]:
        """See `Walk`."""
        return {"stem": self.stem(image), "condition_image": self.b.node("Identity", image.value)}

    def guide(self, h: Map, halved: list[Map], condition: dict[str, Value]) -> tuple[Map, dict[str, Value]]:
        """See `Walk`."""
        image = Map(condition["condition_image"], self.config.image_channels, self.config.image_size)
        cal, _, bottleneck = self.highway(image, halved)
        given = self.resized(self.conv("hwm.bottleneck_proj", bottleneck, h.width, 1), h.size)
        return self.add(h, given), {"cal": cal}

    def _inject(self, stage: int, x: Map, feature: Map) -> Map:
        h = self.fourier(f"hwm.ffparser.{stage}", self.conv(f"hwm.conv_trans_blocks_a.{stage}", feature, x.width, 1))
        spatial = self.conv(f"hwm.conv_trans_blocks_b.{stage}", h, 1, 1)
        channel = self.b.node("ReduceMean", h.value, self.integers(2, 3), keepdims=1)
        return x._replace(value=self.b.node("Mul", self.b.node("Mul", x.value, spatial.value), channel))
