"""What computes the network: Jittor, or ONNX Runtime where Jittor is missing or would first have to compile itself.

Or OpenVINO, where that is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from medsegdiff.base import machine, ranks, screen
from medsegdiff.base.bounds import check_choice
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.choices import Precision
from medsegdiff.inference.denoiser import Denoiser
from medsegdiff.kernels import precision as formats
from medsegdiff.runtime import requirements, toolchain

Backend = Literal["auto", "jittor", "onnx", "openvino"]
RUNTIMES = {"onnx": ("ONNX Runtime", "onnxruntime"), "openvino": ("OpenVINO", "openvino")}
"""What computes a network's ONNX graphs, by its backend: its name, and the package that it comes in."""
_LACKS = {"onnx": "bf16", "openvino": "fp16"}


def choose(backend: Backend = "auto", precision: Precision = "fp32") -> str:
    """ "jittor", "onnx" or "openvino"; `auto` is Jittor where that is compiled, else ONNX Runtime, of which it tells.

    Raises:
        InputError: the backend or the precision is unknown, or the backend is not installed, or lacks the precision.
    """
    check_choice("`backend`", backend, get_args(Backend))
    check_choice("`precision`", precision, get_args(Precision))
    if backend in RUNTIMES:
        if lacks := _lacks(backend, precision):
            raise InputError(f"`backend` {backend}: {lacks}; or use that of Jittor")
        return backend
    if backend == "auto" and not _lacks("onnx", precision) and ranks.count() == 1 and (reason := unready()):
        screen.note(f"note: ONNX Runtime computes the network: {reason}")
        return "onnx"
    formats.check(precision)
    return "jittor"


def _lacks(backend: str, precision: Precision) -> str:
    """What `backend`, which is not Jittor, lacks to compute in `precision`; empty if nothing."""
    name, package = RUNTIMES[backend]
    if precision == _LACKS[backend]:
        return f"{name} lacks {precision}; choose another `precision`"
    reason = formats.missing_on_cpu(precision, machine.cpu()) if precision == "bf16" else ""
    missing = [name for name in ("onnx", package) if not is_installed(name)]
    remedy = f"pip install 'medsegdiff-jittor[{backend}]'"  # which keeps NumPy as Jittor needs it
    return reason or (f"{' and '.join(missing)} not installed: {remedy}" if missing else "")


def is_installed(package: str) -> bool:
    """Whether it can be imported; of a mere folder of this name, as `convert` writes one, Python says that it can."""
    found = find_spec(package)
    return found is not None and found.origin is not None


def unready() -> str:
    """Why Jittor cannot compute at once, in words: what it lacks, or that it must compile first; empty if it can."""
    try:
        requirements.check()
        compiled = toolchain.is_compiled()
    except InputError as error:
        return str(error).partition(";")[0]  # what to do about it `medsegdiff doctor` says
    return "" if compiled else "Jittor is not compiled here yet (medsegdiff doctor --warm does it, in minutes)"


def load_denoiser(weights: Weights, backend: str, precision: Precision = "fp32") -> Denoiser:
    """A network with trained weights, on the backend that `choose` gave.

    Raises:
        InputError: the weights do not fit their own configuration, the network is conditioned on class labels, or this
            machine lacks the backend or the precision.
    """
    if weights.config.network.class_cond:
        remedy = "convert it to ONNX, for a program that gives them"
        raise InputError(f"{weights.source}: a network that takes class labels, which images have none of; {remedy}")
    if backend in RUNTIMES:
        try:
            from medsegdiff.inference.onnx_denoiser import load_onnx

            return load_onnx(weights, precision, backend)
        except ImportError as error:  # a package of another NumPy, or without its libraries
            reason = " ".join(str(error).split())[:200]
            remedy = f"install it anew: pip install --force-reinstall 'medsegdiff-jittor[{backend}]'"
            raise InputError(f"`backend` {backend}: cannot be imported ({reason}); {remedy}") from error

    from medsegdiff.inference import jittor_denoiser

    return jittor_denoiser.load_denoiser(weights, precision)
