"""Version "v2" as operations: uncertain anchor and spectrum-space transformer. What they compute is that of `nn.v2`."""

from __future__ import annotations

import math
from typing import Optional

import numpy as np

from medsegdiff.base.fourier import fourier_matrix
from medsegdiff.checkpoints.graph.builder import Value
from medsegdiff.checkpoints.graph.layers import Map
from medsegdiff.checkpoints.graph.networks import Walk

_REACH, _LEAST_VARIANCE = 2, 1e-6
_HIDDEN, _LAYERS = 32, 3
GATES = ("gate", "half_gate")


class SpectrumWalk(Walk):
    """Version "v2"."""

    def condition(self, image: Map) -> dict[str, Value]:
        """See `Walk`."""
        config = self.config
        cal, expanded, bottleneck = self.highway(image, [])
        if config.image_input:
            stem = self.stem(image)
        else:
            bias = self.b.weight("input_blocks.0.0.bias", (config.num_channels,), view=(config.num_channels, 1, 1))
            nothing = self.b.node("ReduceMean", image.value, self.integers(1), keepdims=1)
            stem = self.b.node("Add", self.b.node("Mul", nothing, self.b.constant(np.float32([0]))), bias)
        found = {"stem": stem, "cal": cal}
        if config.ssformer != "none":
            met = self.conv("ssformer.condition", bottleneck, config.level_widths[-1], 1)
            found["semantics"] = self.resized(met, config.deepest_map).value
        for level, name in enumerate(GATES[: config.anchor_levels]):
            found[name] = self._gate(f"anchors.{level}", expanded[-1 - level])
        return found

    def _gate(self, name: str, x: Map) -> Value:
        mean = self.b.weight(f"{name}.mean", (x.width, 2))
        centres = self.b.node("Split", mean, self.integers(1, 1), outputs=2, axis=1)
        deviation = self.b.node("Softplus", self.b.weight(f"{name}.deviation", (x.width,), view=(x.width, 1)))
        variance = self.b.node("Mul", deviation, deviation)
        variance = self.b.node("Add", variance, self.b.constant(np.float32([_LEAST_VARIANCE])))
        below = self.b.node("Mul", variance, self.b.constant(np.float32([-2])))
        at = self.b.constant(np.arange(-_REACH, _REACH + 1, dtype=np.float32)[None])
        blurred, size = x.value, 2 * _REACH + 1
        for centre, kernel in zip(centres, ([size, 1], [1, size])):
            offset = self.b.node("Sub", at, centre)
            exponent = self.b.node("Div", self.b.node("Mul", offset, offset), below)
            weights = self.b.node("Softmax", exponent, axis=1)
            weights = self.b.node("Reshape", weights, self.integers(x.width, 1, *kernel))
            pads = [side // 2 for side in kernel] * 2
            blurred = self.b.node("Conv", blurred, weights, group=x.width, kernel_shape=kernel, pads=pads)
        larger = x._replace(value=self.b.node("Max", blurred, x.value))
        return self.b.node("Sigmoid", self.conv(f"{name}.gate", larger, 1, 1).value)

    def anchored(self, h: Map, stage: int, condition: dict[str, Value]) -> Map:
        """See `Walk`."""
        stages = (0, self.config.num_res_blocks + 1)  # the first, and the first downsampling
        for place, name in zip(stages, GATES[: self.config.anchor_levels]):
            if stage == place:
                gained = self.b.node("Add", condition[name], self.b.constant(np.float32([1])))
                h = h._replace(value=self.b.node("Mul", h.value, gained))
        return h

    def guide(self, h: Map, halved: list[Map], condition: dict[str, Value]) -> tuple[Map, dict[str, Value]]:
        """See `Walk`."""
        if self.config.ssformer == "none":
            return h, {}
        c = h._replace(value=condition["semantics"])
        for block in range(self.config.ssformer_blocks):
            c = self._meet(f"ssformer.blocks.{block}.semantics", h, c)
            c = self._meet(f"ssformer.blocks.{block}.noise", c, h)
        return self.add(h, self.conv("ssformer.out", c, h.width, 1)), {}

    def _meet(self, name: str, q: Map, kv: Map) -> Map:
        """Cross-attention, then a perceptron that the timestep modulates."""
        config, heads, n = self.config, self.config.ssformer_heads, q.size**2
        depth, doubled = q.width // heads, 2 if config.ssformer == "spectrum" else 1
        seen = self.norm(f"{name}.norm_kv", kv)
        query = self.conv(f"{name}.query", self.norm(f"{name}.norm_q", q), doubled * q.width, 1, bias=False).value
        key = self.conv(f"{name}.key", seen, doubled * q.width, 1, bias=False).value
        value = self.conv(f"{name}.value", seen, q.width, 1, bias=False).value
        value = self.b.node("Reshape", value, self.integers(0, heads, depth, n))
        if config.ssformer == "spectrum":
            gain = self._filter(f"{name}.filter", n) if config.spectrum == "nbp" else None
            taken = self.b.node("MatMul", value, self._affinity(query, key, n, q, gain))
        else:
            scale = self.b.constant(np.float32([depth**-0.25]))
            query, key = (
                self.b.node("Mul", self.b.node("Reshape", x, self.integers(0, heads, depth, n)), scale)
                for x in (query, key)
            )
            scores = self.b.product("MatMul", self.turned(query), key)
            taken = self.b.product("MatMul", value, self.turned(self.b.node("Softmax", scores, axis=-1)))
        taken = self.b.node("Reshape", taken, self.integers(0, q.width, q.size, q.size))
        z = self.add(self.conv(f"{name}.proj_out", q._replace(value=taken), q.width, 1), q)
        e = self.linear(f"{name}.emb_layers.1", self.embedding, 4 * config.num_channels, 2 * q.width)
        h = self.modulated(self.norm(f"{name}.norm", z), *self.parts(e, q.width, 2))
        h = self.conv(f"{name}.mlp.0", h, 4 * q.width, 1)
        erf = self.b.node("Erf", self.b.node("Mul", h.value, self.b.constant(np.float32([math.sqrt(0.5)]))))
        half = self.b.node("Mul", h.value, self.b.constant(np.float32([0.5])))
        gelu = self.b.node("Mul", half, self.b.node("Add", erf, self.b.constant(np.float32([1]))))
        return self.add(self.conv(f"{name}.mlp.2", h._replace(value=gelu), q.width, 1), z)

    def _affinity(self, query: Value, key: Value, n: int, q: Map, gain: Optional[Value]) -> Value:
        """A of `kernels.operations.spectral_attention`: (N, heads, n, n), transposed; never in fewer bits."""
        heads = self.config.ssformer_heads
        depth = q.width // heads
        matrix = fourier_matrix(q.size, q.size)
        spectra = []
        for x in (query, key):
            rows = self.b.node("Reshape", x, self.integers(0, q.width, 2 * n))
            spectrum = self.b.node("MatMul", rows, self.b.constant(matrix))
            spectra.append(self.b.node("Reshape", spectrum, self.integers(0, heads, depth, 2 * n)))
        products = self.b.node("MatMul", self.turned(spectra[0]), spectra[1])
        products = self.b.node("Mul", products, self.b.constant(np.float32([depth**-0.5])))
        real, imaginary = self.b.node("Split", products, self.integers(n, n), outputs=2, axis=2)
        first, second = self.b.node("Split", imaginary, self.integers(n, n), outputs=2, axis=3)
        scores = self.b.node("Add", real, self.b.node("Concat", self.b.node("Neg", second), first, axis=3))
        if gain is None:
            scores = self.b.node("Sin", scores)
        else:
            scores = self.b.node("Mul", scores, self.b.node("Concat", gain, gain, axis=3))
        half = self.b.node("MatMul", scores, self.b.constant(np.ascontiguousarray(matrix.T)))
        half = self.b.node("Reshape", half, self.integers(0, heads, n, 2, n))
        half = self.b.node("Transpose", half, perm=[0, 1, 4, 3, 2])
        half = self.b.node("Reshape", half, self.integers(0, heads, n, 2 * n))
        affinity = self.b.node("MatMul", half, self.b.constant(np.ascontiguousarray(matrix[:n].T)))
        return self.b.node("Softmax", affinity, axis=2) if self.config.attention_norm == "softmax" else affinity

    def _filter(self, name: str, tokens: int) -> Value:
        """The neural band-pass filter's gains (N or 1, 1, tokens, tokens)."""
        at = np.linspace(-1, 1, tokens, dtype=np.float32)
        x = Map(self.b.constant(np.stack(np.meshgrid(at, at, indexing="ij"))[None]), 2, tokens)
        e = self.linear(f"{name}.emb_layers.1", self.time, 4 * self.config.num_channels, 2 * _LAYERS * _HIDDEN)
        modulations = self.parts(e, _HIDDEN, 2 * _LAYERS)
        for layer, (scale, shift) in enumerate(zip(modulations[::2], modulations[1::2])):
            x = self.conv(f"{name}.convs.{layer}", x, _HIDDEN)
            x = self.silu(self.modulated(x._replace(value=self.normalised(x, 1)), scale, shift))
        return self.b.node("Sigmoid", self.conv(f"{name}.out", x, 1, 1).value)
