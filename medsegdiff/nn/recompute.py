"""Gradient checkpointing (Chen et al. 2016): what a part computes is computed again in the backward pass, not kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from medsegdiff.kernels import precision
from medsegdiff.nn.layers import BatchNorm2d, Dropout
from medsegdiff.runtime.backend import Var, jt, nn


class Part(nn.Module):
    """A part of a network, with one output, of which only inputs and output are kept once `recomputed` is set."""

    recomputed = False

    def __call__(self, *inputs: Var) -> Var:
        """As `execute`; without gradients there is nothing to keep anyway."""
        if not self.recomputed or jt.flags.no_grad:
            return super().__call__(*inputs)
        trained = [value for value in self.parameters() if not value.is_stop_grad()]
        return _Recomputed(self, trained, len(inputs))(*inputs, *trained)


def set_recomputed(network: nn.Module, recomputed: bool) -> None:
    """Choose for all parts of `network` whether they are computed twice."""
    for module in network.modules():
        if isinstance(module, Part):
            module.recomputed = recomputed


def _after(gradient: Var, value: Var) -> Var:
    """`value` again, to be had once `gradient` is.

    The graph is lazy: without this, a part would be computed again along with the first time. To force the order by
    computing here does not help: Jittor may then reuse memory of gradients whose other uses it has not heard of yet.
    """
    zero = gradient.reindex([1] * len(value.shape), ["0"] * len(gradient.shape)) * 0
    return value + zero


class _Recomputed(jt.Function):
    """Takes the part's parameters as inputs too, so that it hears of their gradients."""

    def __init__(self, part: Part, trained: list[Var], count: int) -> None:
        self.part, self.trained, self.count = part, trained, count
        streams = {id(layer.streams): layer.streams for layer in part.modules() if isinstance(layer, Dropout)}
        self.precision = precision.current()
        self.generators = [(stream, copy.deepcopy(stream.generators)) for stream in streams.values()]

    def execute(self, *values: Var) -> Var:
        self.inputs = values[: self.count]
        with jt.no_grad():
            return self.part.execute(*self.inputs)

    def grad(self, grad: Var) -> list[Var]:
        # Cut from its graph, which leads back to the same parameters.
        grad = grad.detach().stop_grad()
        first, *others = (value.detach() for value in self.inputs)
        inputs = [value.start_grad() for value in (_after(grad, first), *others)]
        with precision.using(self.precision):
            with self._repeated():
                result = self.part.execute(*inputs)
            gradients = jt.grad((result * grad).sum(), [*inputs, *self.trained], retain_graph=False)
        self.inputs = self.generators = ()
        return gradients

    @contextmanager
    def _repeated(self) -> Iterator[None]:
        """The same dropouts again; running statistics have taken in this batch already."""
        norms = [layer for layer in self.part.modules() if isinstance(layer, BatchNorm2d)]
        later = [(stream, stream.generators) for stream, _ in self.generators]
        for stream, generators in self.generators:
            stream.generators = generators
        for norm in norms:
            norm.tracking = False
        try:
            yield
        finally:
            for stream, generators in later:
                stream.generators = generators
            for norm in norms:
                norm.tracking = True
