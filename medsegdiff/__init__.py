"""Medical image segmentation with a conditional diffusion model (MedSegDiff), on Jittor.

Importing it does nothing yet: what is named here is imported when it is first used, and Jittor, which compiles and
changes settings of the process, when a network is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # to a type checker it is true; `typing` is not imported, nor anything else: Ctrl-C comes early
if TYPE_CHECKING:
    from typing import Any

    from medsegdiff.api import Segmentation, Segmenter, VolumeSegmentation, evaluate, load, train
    from medsegdiff.base.errors import InputError

__version__ = "0.2.0"
__all__ = ["InputError", "Segmentation", "Segmenter", "VolumeSegmentation", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("medsegdiff.base.errors" if name == "InputError" else "medsegdiff.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
