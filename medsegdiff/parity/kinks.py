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
from typing import Callable, NamedTuple, Optional

import numpy as np

from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.runtime.backend import Var, jt

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
        errors: of gradients, which may be those of some parameters only, against the stored numbers, by parameter
        tolerance: what each error may be
    """

    def off(gradients: Gradients, unit: str) -> float:
        own = {name: gradient for name, gradient in gradients.items() if name.startswith(f"hwm.{unit}.")}
        return max(error for name, error in errors(own).items() if name in own)

    with Sides().watching(network) as sides:
        gradients = measure()
        while len(sides.moved) < MOST:
            unit = _first_off(errors(gradients), tolerance, list(sides.near))
            if unit is None:
                break
            before = least = off(gradients, unit)
            kept = chosen = list(sides.moved)
            for kink in sorted(sides.near[unit], key=lambda kink: abs(kink.value)):
                sides.moved = [*kept, kink]
                trial = measure()
                left = off(trial, unit)
                if left < least:
                    least, chosen, found = left, sides.moved, trial
                if left <= tolerance:
                    break  # nothing is left to explain
            sides.moved = kept
            if chosen is kept or least > before / 2:
                break
            sides.moved, gradients = chosen, found
    return gradients, sides.moved


def _first_off(errors: Errors, tolerance: float, order: list[str]) -> Optional[str]:
    """The unit nearest to the output, `order` being that of the forward pass, with a gradient that is off."""
    off = {found.group(1) for name, error in errors.items() if error > tolerance and (found := _UNIT.match(name))}
    return next((unit for unit in reversed(order) if unit in off), None)
