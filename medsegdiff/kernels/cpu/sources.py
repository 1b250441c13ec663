"""The kernels' text, for their headers."""

from pathlib import Path


def text(*names: str) -> str:
    """The files of these names, one after the other."""
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
