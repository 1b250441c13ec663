"""Layers as operations. What they compute is that of `medsegdiff.nn`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medsegdiff.base.fourier import half_spectrum
from medsegdiff.checkpoints.graph.builder import Builder, Value
from medsegdiff.config.network import NetworkConfig

GROUPS, EPS = 32, 1e-5


class Map(NamedTuple):
    """A feature map (N, width, size, size)."""

    value: Value
    width: int
    size: int


class Layers:
    """The layers of the network of `config`, each with its weights' names."""

    def __init__(self, builder: Builder, config: NetworkConfig) -> None:
        self.b, self.config = builder, config
        self.embedding: Value = ""
        """Of timestep and label, as all residual blocks begin with it."""
        self.time: Value = ""
        """Of the timestep alone."""

    def residual(self, name: str, x: Map, width: int, resample: str = "") -> Map:
        """A residual block with the timestep embedding; `resample` is "", "up" or "down"."""
        h = self.silu(self.norm(f"{name}.in_layers.0", x))
        if resample:
            change = self.nearest if resample == "up" else self.halved
            h, x = change(h), change(x)
        h = self.conv(f"{name}.in_layers.2", h, width)
        doubled = self.config.use_scale_shift_norm
        e = self.linear(f"{name}.emb_layers.1", self.embedding, 4 * self.config.num_channels, width * (1 + doubled))
        norm = f"{name}.out_layers.0"
        if doubled:
            h = self.modulated(self.norm(norm, h), *self.parts(e, width, 2))
        else:
            added = self.b.node("Unsqueeze", e, self.integers(2, 3))
            h = self.norm(norm, h._replace(value=self.b.node("Add", h.value, added)))
        h = self.conv(f"{name}.out_layers.3", self.silu(h), width)
        return self.add(h, x if x.width == width else self.conv(f"{name}.skip_connection", x, width, 1))

    def attention(self, name: str, x: Map, upsample: bool = False) -> Map:
        """Self-attention over the pixels."""
        heads, tokens = self.config.heads(x.width, upsample), x.size**2
        depth = x.width // heads
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x), 3 * x.width, 1, flat=True).value
        # The legacy order of the channels: head, then q, k, v.
        order, axis = ((3, heads), 1) if self.config.use_new_attention_order else ((heads, 3), 2)
        qkv = self.b.node("Reshape", qkv, self.integers(0, *order, depth, tokens))
        parts = self.b.node("Split", qkv, self.integers(1, 1, 1), outputs=3, axis=axis)
        q, k, v = (self.b.node("Reshape", part, self.integers(0, heads, depth, tokens)) for part in parts)
        scale = self.b.constant(np.float32([depth**-0.25]))  # of both, or float16 overflows
        q = self.turned(self.b.node("Mul", q, scale))
        scores = self.b.node("Softmax", self.b.product("MatMul", q, self.b.node("Mul", k, scale)), axis=-1)
        h = self.b.product("MatMul", v, self.turned(scores))
        h = self.b.node("Reshape", h, self.integers(0, x.width, x.size, x.size))
        return self.add(x, self.conv(f"{name}.proj_out", x._replace(value=h), x.width, 1, flat=True))

    def fourier(self, name: str, x: Map) -> Map:
        """The FF-Parser, by DFT matrices, as `nn.functional.fourier_filter`."""
        size, node = x.size, self.b.node
        along_h, along_w, fold = half_spectrum(size, size)

        def times(value: Value, matrix: np.ndarray) -> Value:
            matrix = (matrix / math.sqrt(size)).astype(np.float32)
            return node("MatMul", value, self.b.constant(matrix))  # never in fewer bits

        cos, sin = np.cos(along_h), np.sin(along_h)
        weight = self.b.weight(f"{name}.complex_weight", (x.width, size, size // 2 + 1, 2))
        weight = node("Transpose", weight, perm=[3, 0, 2, 1])
        w_re, w_im = node("Split", weight, self.integers(1, 1), outputs=2, axis=0)
        re, im = self.turned(times(x.value, np.cos(along_w))), self.turned(times(x.value, -np.sin(along_w)))
        re, im = node("Add", times(re, cos), times(im, sin)), node("Sub", times(im, cos), times(re, sin))
        re, im = (
            node("Sub", node("Mul", re, w_re), node("Mul", im, w_im)),
            node("Add", node("Mul", re, w_im), node("Mul", im, w_re)),
        )
        re, im = node("Sub", times(re, cos), times(im, sin)), node("Add", times(im, cos), times(re, sin))
        real = times(self.turned(re), fold * np.cos(along_w).T)
        return x._replace(value=node("Sub", real, times(self.turned(im), fold * np.sin(along_w).T)))

    def conv(
        self, name: str, x: Map, width: int, kernel: int = 3, stride: int = 1, bias: bool = True, flat: bool = False
    ) -> Map:
        """A convolution that keeps the size; `flat`: its weight is stored as that of a 1-D one."""
        shape = (width, x.width, 1) if flat else (width, x.width, kernel, kernel)
        weights = [self.b.weight(f"{name}.weight", shape, view=(width, x.width, kernel, kernel))]
        if bias:
            weights.append(self.b.weight(f"{name}.bias", (width,)))
        window = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return Map(self.b.product("Conv", x.value, *weights, **window), width, x.size // stride)

    def linear(self, name: str, x: Value, inputs: int, outputs: int) -> Value:
        """(N, inputs) -> (N, outputs)."""
        weight, bias = self.b.weight(f"{name}.weight", (outputs, inputs)), self.b.weight(f"{name}.bias", (outputs,))
        return self.b.product("Gemm", x, weight, bias, transB=1)

    def turned(self, x: Value) -> Value:
        """(N, M, a, b) -> (N, M, b, a)."""
        return self.b.node("Transpose", x, perm=[0, 1, 3, 2])

    def parts(self, values: Value, width: int, count: int) -> list[Value]:
        """(N, count width) -> so many (N, width, 1, 1)."""
        values = self.b.node("Unsqueeze", values, self.integers(2, 3))
        return self.b.node("Split", values, self.integers(*[width] * count), outputs=count, axis=1)

    def modulated(self, x: Map, scale: Value, shift: Value) -> Map:
        """`x * (1 + scale) + shift`."""
        scale = self.b.node("Add", scale, self.b.constant(np.float32([1])))
        return x._replace(value=self.b.node("Add", self.b.node("Mul", x.value, scale), shift))

    def normalised(self, x: Map, groups: int) -> Value:
        """Each group of channels with mean 0 and standard deviation 1."""
        grouped = self.b.node("Reshape", x.value, self.integers(0, groups, -1))
        ones, zeros = self.b.constant(np.ones(groups, np.float32)), self.b.constant(np.zeros(groups, np.float32))
        h = self.b.node("InstanceNormalization", grouped, ones, zeros, epsilon=EPS)
        return self.b.node("Reshape", h, self.integers(0, x.width, x.size, x.size))

    def norm(self, name: str, x: Map) -> Map:
        """Group normalisation, with its weights."""
        h = self.normalised(x, GROUPS)
        weight, bias = (
            self.b.weight(f"{name}.{part}", (x.width,), view=(x.width, 1, 1)) for part in ("weight", "bias")
        )
        return x._replace(value=self.b.node("Add", self.b.node("Mul", h, weight), bias))

    def swish(self, x: Value) -> Value:
        """`x * sigmoid(x)`."""
        return self.b.node("Mul", x, self.b.node("Sigmoid", x))

    def silu(self, x: Map) -> Map:
        """The same of a map."""
        return x._replace(value=self.swish(x.value))

    def add(self, x: Map, y: Map) -> Map:
        """The sum of two maps of one width."""
        return x._replace(value=self.b.node("Add", x.value, y.value))

    def join(self, x: Map, y: Map) -> Map:
        """Two maps along the channels."""
        return Map(self.b.node("Concat", x.value, y.value, axis=1), x.width + y.width, x.size)

    def halved(self, x: Map, factor: int = 2) -> Map:
        """Average pooling."""
        window = {"kernel_shape": [factor] * 2, "strides": [factor] * 2}
        return x._replace(value=self.b.node("AveragePool", x.value, **window), size=x.size // factor)

    def nearest(self, x: Map) -> Map:
        """Twice the size, each pixel repeated."""
        return self.resize(x, 2, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    def bilinear(self, x: Map, factor: int) -> Map:
        """`factor` times the size, corners not aligned."""
        return self.resize(x, factor, mode="linear", coordinate_transformation_mode="half_pixel")

    def resize(self, x: Map, factor: int, **attributes: str) -> Map:
        """`factor` times the size."""
        scales = self.b.constant(np.float32([1, 1, factor, factor]))
        return Map(self.b.node("Resize", x.value, "", scales, **attributes), x.width, x.size * factor)

    def resized(self, x: Map, size: int) -> Map:
        """At `size`: average pooling down, bilinear up."""
        if x.size > size:
            return self.halved(x, x.size // size)
        return x if x.size == size else self.bilinear(x, size // x.size)

    def integers(self, *values: int) -> Value:
        """A constant."""
        return self.b.constant(np.array(values, np.int64))
