"""Medical image segmentation with a conditional diffusion model (MedSegDiff), on Jittor.

Importing it does nothing yet: what is named here is imported when it is first used, and Jittor, which compiles and
changes settings of the process, when a network is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsegdiff.api import Segmentation, Segmenter, evaluate, load, train
    from medsegdiff.base.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "Segmentation", "Segmenter", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("medsegdiff.base.errors" if name == "InputError" else "medsegdiff.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
