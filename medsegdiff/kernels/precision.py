"""What kernels compute in inside; their inputs and results are float32 in any case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PRECISIONS = ("fp32", "bf16", "fp16")
_current = ["fp32"]


def current() -> str:
    """The precision of operations that are built now."""
    return _current[-1]


@contextmanager
def using(precision: str) -> Iterator[None]:
    """Build operations in `precision` inside the block."""
    _current.append(precision)
    try:
        yield
    finally:
        _current.pop()
