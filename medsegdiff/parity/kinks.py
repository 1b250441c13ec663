"""Activations of the conditioning network that stand at LeakyReLU's kink.

An activation within rounding of zero takes one slope in one framework, on one machine, and the other in another; the
gradients of its layer and of all behind it then differ, by up to a percent, with nobody wrong. Where a gradient is
off, the search looks for the cause where it must be: backwards from the output, in the first layer that is off. It
puts the layer's activations within rounding of zero on their other side, one by one, and keeps a change only if it
brings that layer to the stored numbers. What no such change explains stays an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
Gradients = dict[str, Var]
Errors = dict[str, float]
REACH = 1e-5  # of normalised activations: what is further from zero is no rounding
MOST = 8  # changes in one search
_UNIT = re.compile(r"^hwm\.(conv_blocks_(context|localization)\.[\d.]+\.blocks\.\d+)\.")


class Kink(NamedTuple):
    """An activation put on its other side."""

    unit: str
    """The convolution unit of `hwm`."""
    index: int
    """In its flattened normalised map."""
    value: float
    """What it was."""


class Sides:
    """Watches the normalised maps of all convolution units, and moves single activations over zero."""

    def __init__(self) -> None:
        self.moved: list[Kink] = []
        self.near: dict[str, list[Kink]] = {}

    @contextmanager
    def watching(self, network: MedSegDiff) -> Iterator[Sides]:
        """Watch `network` inside the block."""
        norms = {name: unit.instnorm for name, unit in network.hwm.named_modules() if hasattr(unit, "instnorm")}
        for name, norm in norms.items():
            norm.execute = self._watched(name, norm.execute)
        try:
            yield self
        finally:
            for norm in norms.values():
                del norm.execute

    def _watched(self, unit: str, normalise: Callable[[Var], Var]) -> Callable[[Var], Var]:
        def execute(x: Var) -> Var:
            z = normalise(x)
            values = z.numpy().reshape(-1)
            found = np.flatnonzero(np.abs(values) < REACH)
            self.near[unit] = [Kink(unit, int(index), float(values[index])) for index in found]
            shift = np.zeros_like(values)
            for kink in self.moved:
                if kink.unit == unit:
                    # As far on the other side; LeakyReLU counts zero itself as negative.
                    shift[kink.index] = -2 * kink.value or np.finfo(np.float32).eps
            return z + jt.array(shift.reshape(z.shape))

        return execute


def search(
    network: MedSegDiff, measure: Callable[[], Gradients], errors: Callable[[Gradients], Errors], tolerance: float
) -> tuple[Gradients, list[Kink]]:
    """Gradients with as many activations on their other side as explain errors over `tolerance`, and these.

    Args:
        network: what is measured
        measure: gradients by parameter, the same whenever it is called
        errors: of gradients against the stored numbers, by parameter
        tolerance: what each error may be
    """
    with Sides().watching(network) as sides:
        gradients = measure()
        while len(sides.moved) < MOST:
            found = errors(gradients)
            unit = _first_off(found, tolerance, list(sides.near))
            if unit is None:
                break
            before, trials = _worst(found, unit), {}
            kept = list(sides.moved)
            for kink in sides.near[unit]:
                sides.moved = [*kept, kink]
                trials[kink] = measure()
            sides.moved = kept
            best = min(trials, key=lambda kink: _worst(errors(trials[kink]), unit), default=None)
            if best is None or _worst(errors(trials[best]), unit) > min(before / 2, before):
                break
            sides.moved, gradients = [*kept, best], trials[best]
    return gradients, sides.moved


def _first_off(errors: Errors, tolerance: float, order: list[str]) -> Optional[str]:
    """The unit nearest to the output, `order` being that of the forward pass, with a gradient that is off."""
    off = {found.group(1) for name, error in errors.items() if error > tolerance and (found := _UNIT.match(name))}
    return next((unit for unit in reversed(order) if unit in off), None)


def _worst(errors: Errors, unit: str) -> float:
    return max(error for name, error in errors.items() if name.startswith(f"hwm.{unit}."))
