"""The kernels' text, for the header of Jittor's `code` operation."""

from __future__ import annotations

from pathlib import Path

SOURCES = ("normalisation", "addition", "softmax", "update")


def source(*names: str) -> str:
    """The kernels of these names, with what all of them need."""
    folder = Path(__file__).parent
    files = [folder / "launch.h", *(folder / f"{name}.cuh" for name in names)]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
