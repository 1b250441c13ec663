"""The kernels' text, for the header of Jittor's `code` operation."""

from __future__ import annotations

from pathlib import Path

SOURCES = ("normalisation", "addition", "softmax", "update")
CONVOLUTION = ("addition", "shape", "library", "cudnn", "convolution")
"""For convolutions; "library" and "cudnn" want the header of cuDNN."""


def source(*names: str) -> str:
    """The kernels of these names, with what all of them need."""
    return "\n".join(map(text, ("launch", *names)))


def text(name: str) -> str:
    """One file of them."""
    return Path(__file__).with_name(f"{name}.cuh").read_text(encoding="utf-8")
