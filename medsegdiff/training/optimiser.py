"""AdamW and running averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medsegdiff.kernels.operations import Step, adamw, approach, sum_of_squares
from medsegdiff.runtime.backend import Var, jt, persistent


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), bias-corrected, eps 1e-8.

    With `decay_all` everything decays, as published; without it, weights of two dimensions and more: not biases, and
    not the scales of norms.
    """

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Mapping[str, Var], weight_decay: float = 0.0, decay_all: bool = True) -> None:
        self.parameters, self.weight_decay = parameters, weight_decay
        self.decayed = {name for name, p in parameters.items() if decay_all or len(p.shape) > 1}
        self.count = 0
        self.mean = {name: jt.zeros_like(p).stop_grad() for name, p in parameters.items()}
        self.square = {name: jt.zeros_like(p).stop_grad() for name, p in parameters.items()}

    def step(self, gradients: Mapping[str, Var], lr: float, scale: float = 1.0) -> None:
        """Move every parameter against its gradient, taken times `scale`."""
        self.count += 1
        numbers = Step(
            scale=scale,
            keep=1.0,
            rate=lr / (1 - self.beta1**self.count),
            correction=1 / np.sqrt(1 - self.beta2**self.count),
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
        )
        plain = self.parameters.keys() - self.decayed
        for chosen, keep in ((self.decayed, 1 - lr * self.weight_decay), (plain, 1.0)):
            names = [name for name in self.parameters if name in chosen]
            arrays = ([held[name] for name in names] for held in (self.parameters, gradients, self.mean, self.square))
            adamw(*arrays, numbers._replace(keep=keep))

    def state(self) -> dict[str, Var]:
        """Both moments of every parameter, as "mean:NAME" and "square:NAME"."""
        moments = {f"mean:{name}": value for name, value in self.mean.items()}
        return {**moments, **{f"square:{name}": value for name, value in self.square.items()}}

    def load(self, arrays: Mapping[str, np.ndarray], count: int) -> None:
        """Continue from the moments of `state` after `count` steps."""
        for key, value in self.state().items():
            value.assign(persistent(arrays[key]))
        self.count = count


class Average:
    """An exponential moving average of a network's state, running statistics included."""

    def __init__(self, state: Mapping[str, Var], rate: float, warmup: bool) -> None:
        self.rate, self.warmup = rate, warmup
        self.source = state
        # A copy, as the weights are overwritten in place.
        self.values = {name: value.detach().copy().stop_grad() for name, value in state.items()}

    def update(self, step: int) -> None:
        """Take in the weights after training step `step`, counted from 1."""
        rate = min(self.rate, (1 + step) / (10 + step)) if self.warmup else self.rate
        approach(list(self.values.values()), [self.source[name] for name in self.values], 1 - rate)

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from `arrays`."""
        for name, value in self.values.items():
            value.assign(persistent(arrays[name]))


def global_norm(values: Mapping[str, Var]) -> Var:
    """The Euclidean norm of all values together, a scalar."""
    return jt.sqrt(sum_of_squares(list(values.values()))).float32()
