"""Does the device compute what it should? The network's operations and their gradients against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from medsegdiff.base.randomness import generator
from medsegdiff.kernels import operations
from medsegdiff.kernels.operations import attention, conv2d, group_norm
from medsegdiff.kernels.reference import EPS
from medsegdiff.runtime.backend import Var, jt

LIMIT = 2e-5
"""The largest error that passes, relative to the values: float32 stays ten times below, TF32 comes out far above."""
_DIRECTIONS, _STEP = 3, 1e-4


class Check(NamedTuple):
    """An operation with its definition."""

    name: str
    ours: Callable[..., Var]
    """The operation, of Jittor's values."""
    definition: Callable[..., np.ndarray]
    """The same of float64 arrays."""
    inputs: tuple[np.ndarray, ...]
    """What both are given, float32."""


class Outcome(NamedTuple):
    """How far an operation is from its definition."""

    name: str
    value: float
    """The largest error of the result, relative to its largest value."""
    gradient: float
    """The largest error of a derivative in a random direction, relative to its usual size."""

    @property
    def passed(self) -> bool:
        """Whether both are what float32 allows; an error that is not a number is not."""
        return self.value <= LIMIT and self.gradient <= LIMIT


def device() -> str:
    """Where Jittor computes: "GPU" or "CPU"."""
    return {"cuda": "GPU", "cpu": "CPU"}[operations.device().NAME]


def check_device() -> Iterator[Outcome]:
    """Check one operation after the other on the device that Jittor uses."""
    return map(examine, checks())


def examine(check: Check) -> Outcome:
    """Run one operation forward and backward and compare it with its definition."""
    rng = generator("device check", check.name)
    exact = [value.astype(np.float64) for value in check.inputs]
    wanted = check.definition(*exact)
    cotangent = rng.standard_normal(wanted.shape).astype(np.float32)
    inputs = [jt.array(value) for value in check.inputs]
    result = check.ours(*inputs)
    gradients = jt.grad((result * jt.array(cotangent)).sum(), inputs)
    jt.sync([result, *gradients])
    value = np.abs(result.numpy() - wanted).max() / np.abs(wanted).max()
    return Outcome(check.name, float(value), max(_gradient_errors(check, exact, cotangent, gradients, rng)))


def _gradient_errors(
    check: Check, exact: Sequence[np.ndarray], cotangent: np.ndarray, gradients: Sequence[Var], rng: np.random.Generator
) -> Iterator[float]:
    for index, gradient in enumerate(gradients):
        ours = gradient.numpy().astype(np.float64)
        for _ in range(_DIRECTIONS):
            direction = rng.standard_normal(ours.shape)
            ahead, behind = (
                check.definition(*exact[:index], exact[index] + step * direction, *exact[index + 1 :])
                for step in (_STEP, -_STEP)
            )
            wanted = float(((ahead - behind) * cotangent).sum() / (2 * _STEP))
            usual = float(np.linalg.norm(ours)) + np.finfo(np.float32).tiny
            yield abs(float((ours * direction).sum()) - wanted) / usual


def checks() -> tuple[Check, ...]:
    """What is checked, at sizes for which a GPU uses its usual algorithms."""

    def values(*shape: int) -> np.ndarray:
        return generator("device check", "inputs", *shape).standard_normal(shape).astype(np.float32)

    image, moved = values(2, 64, 32, 32), (3, 1, 0, 2)
    return (
        Check(
            "convolution 3x3",
            lambda x, w, b: conv2d(x, w, b, padding=1),
            lambda x, w, b: _convolution(x, w, b, 1, 1),
            (image, values(64, 64, 3, 3), values(64)),
        ),
        Check(
            "convolution 3x3, stride 2",
            lambda x, w, b: conv2d(x, w, b, stride=2, padding=1),
            lambda x, w, b: _convolution(x, w, b, 2, 1),
            (image, values(32, 64, 3, 3), values(32)),
        ),
        Check(
            "convolution 1x1",
            conv2d,
            lambda x, w, b: _convolution(x, w, b, 1, 0),
            (image, values(32, 64, 1, 1), values(32)),
        ),
        Check("matrix product", jt.matmul, np.matmul, (values(256, 192), values(192, 128))),
        Check("transposition", lambda x: x.transpose(moved), lambda x: x.transpose(moved), (image,)),
        Check("softmax", lambda x: jt.nn.softmax(x, dim=-1), lambda x: softmax(x, axis=-1), (values(64, 256),)),
        Check("attention", attention, _attention, (values(4, 64, 256), values(4, 64, 256), values(4, 64, 256))),
        Check(
            "group norm with SiLU",
            lambda x, w, b: group_norm(x, w, b, groups=32, silu=True),
            lambda x, w, b: _group_norm_silu(x, w, b, 32),
            (image, values(2, 64), values(2, 64)),
        ),
        Check("sine of large numbers", jt.sin, np.sin, (1000 * values(64, 64),)),
    )


def _convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    y = np.tensordot(windows[:, :, ::stride, ::stride], weight, axes=([1, 4, 5], [1, 2, 3]))
    return y.transpose(0, 3, 1, 2) + bias.reshape(1, -1, 1, 1)


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scores = q.transpose(0, 2, 1) @ k / np.sqrt(q.shape[1])
    return v @ softmax(scores, axis=-1).transpose(0, 2, 1)


def _group_norm_silu(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    normed = (centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + EPS)).reshape(x.shape)
    z = normed * weight[:, :, None, None] + bias[:, :, None, None]
    return z / (1 + np.exp(-z))
