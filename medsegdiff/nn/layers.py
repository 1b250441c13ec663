"""Layers with parameters. Attribute names are those of the published state dict.

Parameters are zero until `reset` draws them from a NumPy stream of their own, so initial weights
depend on the seed and the parameter's name alone, not on device, rank or order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.kernels.joint_normalisation import joint_batch_norm, joint_moments
from medsegdiff.kernels.operations import Norm, Packed, batch_norm, conv2d, group_norm, linear
from medsegdiff.kernels.reference import EPS
from medsegdiff.runtime.backend import Var, jt, nn, persistent

GROUPS = 32


def _kept(layer: Any) -> Optional[Packed]:
    """Where a convolution may keep its packed weights; none in training, which changes them at each step."""
    if not layer.is_training():
        return layer.packed
    layer.packed.forget()
    return None


class Affine(nn.Module):
    """A layer with a `weight` and perhaps a `bias`, drawn by `init`: "uniform" (fan-in), "he" or "zero"."""

    init = "uniform"

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the initial weights."""
        shape = tuple(self.weight.shape)
        fan_in = math.prod(shape[1:])
        bound = 1 / math.sqrt(fan_in)
        if self.init == "zero":
            return
        if self.init == "he":  # He et al. 2015, for LeakyReLU(0.01); biases stay zero
            draw = rng.standard_normal(shape, dtype=np.float32)
            self.weight.assign(persistent(draw * np.float32(math.sqrt(2 / (1 + 0.01**2) / fan_in))))
            return
        self.weight.assign(persistent(rng.uniform(-bound, bound, shape).astype(np.float32)))
        if self.bias is not None:
            self.bias.assign(persistent(rng.uniform(-bound, bound, shape[:1]).astype(np.float32)))


class Convolution(Affine):
    """What convolutions have in common."""

    def __init__(self, shape: Sequence[int], bias: bool, init: str) -> None:
        self.init = init
        self.weight = jt.zeros(shape)
        self.bias = jt.zeros(shape[:1]) if bias else None
        self.packed = Packed()

    def give_up_weight(self) -> None:
        """Keep only what will be packed of it."""
        if self.weight is not None:
            self.packed.take(self.weight)
            self.weight = None


class Conv2d(Convolution):
    """Convolution, zero-padded to keep the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True, init: str = "uniform"
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), bias, init)
        self.stride, self.padding = stride, kernel // 2

    def execute(
        self, x: Var, shift: Optional[Var] = None, residual: Optional[Var] = None, norm: Optional[Norm] = None
    ) -> Var:
        """(N, inputs, H, W), normed first by `norm` -> (N, outputs, H/stride, W/stride).

        `shift` (N, outputs) and `residual` are added.
        """
        bias = self.bias if shift is None else self.bias.unsqueeze(0) + shift
        return conv2d(x, self.weight, bias, self.stride, self.padding, residual, _kept(self), norm)

    def part(self, x: Var, channels: slice, biased: bool, residual: Optional[Var] = None) -> Var:
        """What `x`, which stands for these of the input channels, adds to the result; with the bias or without."""
        # The sliced weight is another at each call: what is packed of it is not worth keeping.
        packed = None if self.is_training() else Packed()
        bias = self.bias if biased else None
        return conv2d(x, self.weight[:, channels], bias, self.stride, self.padding, residual, packed)


class PointwiseConv(Convolution):
    """A 1x1 convolution whose weight is stored as that of a 1-D convolution (outputs, inputs, 1)."""

    def __init__(self, inputs: int, outputs: int, init: str = "uniform") -> None:
        super().__init__((outputs, inputs, 1), True, init)

    def execute(self, x: Var, residual: Optional[Var] = None, norm: Optional[Norm] = None) -> Var:
        """(N, inputs, H, W), after `norm`, -> (N, outputs, H, W), plus `residual`."""
        return conv2d(x, self.weight, self.bias, residual=residual, packed=_kept(self), norm=norm)


class Linear(Affine):
    """Affine map of the last axis."""

    def __init__(self, inputs: int, outputs: int, init: str = "uniform") -> None:
        self.init = init
        self.weight = jt.zeros((outputs, inputs))
        self.bias = jt.zeros((outputs,))

    def execute(self, x: Var) -> Var:
        """(N, inputs) -> (N, outputs)."""
        return linear(x, self.weight, self.bias)


class Embedding(nn.Module):
    """A learned vector for each label."""

    def __init__(self, labels: int, width: int) -> None:
        self.weight = jt.zeros((labels, width))

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the initial weights."""
        self.weight.assign(persistent(rng.standard_normal(tuple(self.weight.shape), dtype=np.float32)))

    def execute(self, label: Var) -> Var:
        """(N,) integers -> (N, width)."""
        return self.weight[label]


class GroupNorm(nn.Module):
    """Group normalisation over 32 groups."""

    def __init__(self, width: int) -> None:
        self.weight = jt.ones((width,))
        self.bias = jt.zeros((width,))

    def execute(self, x: Var, scale: Optional[Var] = None, shift: Optional[Var] = None, silu: bool = False) -> Var:
        """(N, width, H, W), same shape out: `norm(x) * (1 + scale) + shift`, then SiLU on demand.

        `scale` and `shift` are (N, width).
        """
        return group_norm(x, *self.of(scale, shift, silu))

    def of(self, scale: Optional[Var] = None, shift: Optional[Var] = None, silu: bool = False) -> Norm:
        """The same for the convolution that follows, which takes it in."""
        weight, bias = self.weight.unsqueeze(0), self.bias.unsqueeze(0)
        if scale is not None:
            weight, bias = weight * (1 + scale), bias * (1 + scale) + shift
        return Norm(weight, bias, GROUPS, silu)


class BatchNorm2d(nn.Module):
    """Batch normalisation with running statistics (momentum 0.1, unbiased running variance).

    Of several processes each has a part of the batch; the statistics are those of the whole.
    """

    momentum = 0.1
    tracking = True
    """Whether the running statistics move."""

    def __init__(self, width: int) -> None:
        self.weight = jt.ones((width,))
        self.bias = jt.zeros((width,))
        self.running_mean = jt.zeros((width,)).stop_grad()
        self.running_var = jt.ones((width,)).stop_grad()

    def execute(self, x: Var) -> Var:
        """(N, width, H, W), same shape out; in training mode the running statistics move.

        Raises:
            ValueError: in training mode, there is one value a channel, over all processes: its norm is always 0.
        """
        if not self.is_training():
            scale = self.weight / jt.sqrt(self.running_var + EPS)
            shift = self.bias - self.running_mean * scale
            return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
        count = x.numel() // x.shape[1] * ranks.count()
        if count < 2:
            raise ValueError(f"batch norm cannot train on one value a channel, shape {tuple(x.shape)}")
        if ranks.count() > 1:
            mean, variance = joint_moments(x)
            y = joint_batch_norm(x, self.weight, self.bias, mean, variance)
            mean, variance = mean.float32(), variance.float32()
        else:
            y, mean, variance = batch_norm(x, self.weight, self.bias)
        if self.tracking:
            self._track(mean, variance * (count / (count - 1)))
        return y

    def _track(self, mean: Var, variance: Var) -> None:
        with jt.no_grad():
            self.running_mean.update(self.running_mean + self.momentum * (mean - self.running_mean))
            self.running_var.update(self.running_var + self.momentum * (variance - self.running_var))


class SiLU(nn.Module):
    """`x * sigmoid(x)`, as a layer."""

    def execute(self, x: Var) -> Var:
        """Any shape."""
        # Jittor's logistic function ends at 9.4e-14: nothing beside x. It is fused with what is around it.
        return x * jt.sigmoid(x)


class DropoutStreams:
    """The random streams of one training step, one for each sample, shared by a network's dropouts."""

    def __init__(self) -> None:
        self.generators: list[np.random.Generator] = []

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform float32 of `shape` (N, ...), each sample from its own stream."""
        if len(self.generators) != shape[0]:
            raise RuntimeError(f"{shape[0]} samples are trained with {len(self.generators)} dropout streams")
        return np.stack([g.random(shape[1:], dtype=np.float32) for g in self.generators])


class Dropout(nn.Module):
    """Dropout of single values or, with `channels`, of whole feature maps; none outside training."""

    def __init__(self, probability: float, streams: DropoutStreams, channels: bool = False) -> None:
        self.probability, self.channels, self.streams = probability, channels, streams

    @property
    def acts(self) -> bool:
        """Whether anything is dropped."""
        return self.is_training() and self.probability > 0

    def execute(self, x: Var) -> Var:
        """(N, C, H, W), same shape out."""
        if not self.acts:
            return x
        shape = (*x.shape[:2], 1, 1) if self.channels else tuple(x.shape)
        kept = self.streams.draw(shape) >= self.probability
        return x * jt.array(kept.astype(np.float32) / np.float32(1 - self.probability))


def set_dropout(module: Any, probability: float) -> None:
    """Give every dropout below `module` this probability."""
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.probability = probability
