"""What computes the network: Jittor, or ONNX Runtime where Jittor is missing or would first have to compile itself."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Literal, get_args

from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.choices import Precision
from medsegdiff.inference.denoiser import Denoiser
from medsegdiff.kernels import precision as formats
from medsegdiff.runtime import requirements, toolchain

Backend = Literal["auto", "jittor", "onnx"]
_ONNX = ("onnx", "onnxruntime")


def choose(backend: Backend = "auto", precision: Precision = "fp32") -> str:
    """ "jittor" or "onnx"; `auto` is Jittor where that is compiled, else ONNX Runtime, of which it tells.

    Raises:
        InputError: the backend is unknown, not installed, or lacks the precision.
    """
    if backend not in get_args(Backend):
        raise InputError(f"`backend` {backend}: must be one of {', '.join(get_args(Backend))}")
    missing = [name for name in _ONNX if find_spec(name) is None]
    lacks = f"ONNX Runtime lacks {precision}" if precision == "bf16" else ""
    lacks = lacks or (f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else "")
    if backend == "onnx" and lacks:
        raise InputError(f"`backend` onnx: {lacks}; use that of Jittor, or install what is missing")
    if backend == "auto" and not lacks and ranks.count() == 1:
        reason = unready()
        if reason:
            print(f"note: ONNX Runtime computes the network: {reason}", file=sys.stderr)
            return "onnx"
    if backend != "onnx":
        formats.check(precision)
        return "jittor"
    return "onnx"


def unready() -> str:
    """Why Jittor cannot compute at once, in words: what it lacks, or that it must compile first; empty if it can."""
    try:
        requirements.check()
        compiled = toolchain.is_compiled()
    except InputError as error:
        return str(error)
    return "" if compiled else "Jittor is not compiled here yet (medsegdiff doctor --warm does it, in minutes)"


def load_denoiser(weights: Weights, backend: str, precision: Precision = "fp32") -> Denoiser:
    """A network with trained weights, on the backend that `choose` gave.

    Raises:
        InputError: the weights do not fit their own configuration, or this machine lacks the backend or the precision.
    """
    if backend == "onnx":
        from medsegdiff.inference.onnx_denoiser import load_onnx

        return load_onnx(weights, precision)

    from medsegdiff.inference import jittor_denoiser

    return jittor_denoiser.load_denoiser(weights, precision)
