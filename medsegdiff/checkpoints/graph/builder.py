"""What takes down the operations of a network: ONNX's (opset 18), whose values are names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Value = str


class Builder:
    """What takes the operations down; this one notes no more than the weights' names and shapes."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def weight(self, name: str, shape: Sequence[int], part: slice = slice(None), view: Sequence[int] = ()) -> Value:
        """The weight `name` of this shape: of its second axis the slice `part`, and reshaped to `view`, if given."""
        self.shapes[name] = tuple(shape)
        return ""

    def constant(self, array: np.ndarray) -> Value:
        """An array that is no weight."""
        return ""

    def node(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """The value, or several values, that an operation gives."""
        return "" if outputs == 1 else [""] * outputs

    def product(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """The same for those that multiply matrices, which may be computed in fewer bits."""
        return self.node(kind, *inputs, **attributes)
