"""The CUDA kernels inside Jittor on a CPU: what would be launched is run thread by thread."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from medsegdiff.kernels import operations, reference
from medsegdiff.kernels.cuda import attention, convolution, linear, normalisation, update
from medsegdiff.kernels.cuda import operations as cuda
from medsegdiff.kernels.cuda.sources import text
from medsegdiff.runtime.backend import jt

NAMES = [name for name, value in vars(cuda).items() if inspect.isfunction(value)]
_EMULATOR, _CUDNN = (Path(__file__).with_name(name).read_text() for name in ("emulator.h", "emulated_cudnn.h"))
_FEW = ("THREADS = 256", "THREADS = 8")  # a fiber each: as many as on a GPU take long


def emulated(header: str) -> str:
    """The kernels' text `header` for a CPU."""
    return _EMULATOR + header.replace(text("library"), "").replace(text("cudnn"), _CUDNN)


def _code(*given: Any, cuda_header: str, cuda_src: str, **options: Any) -> Any:
    header = emulated(cuda_header).replace(*_FEW)
    assert header.count(_FEW[1]) == 1
    return jt.code(*given, cpu_header=header, cpu_src=cuda_src, **options)


class _Jittor:
    """Jittor, whose code for a GPU is compiled for the CPU."""

    code = staticmethod(_code)

    def __getattr__(self, name: str) -> Any:
        return getattr(jt, name)


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Within the block the operations are those of a GPU; matrix products are plain ones, as cuBLAS is not there."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(operations, "device", lambda: cuda))
        for module in (cuda, attention, linear):
            stack.enter_context(patch.object(module, "product", reference.product))
        for module in (attention, convolution, normalisation, update):
            stack.enter_context(patch.object(module, "jt", _Jittor()))
        yield


@contextmanager
def on_a_gpu_plainly() -> Iterator[None]:
    """As `on_a_gpu`, by the plain expressions alone: without a fused kernel."""
    plain = SimpleNamespace(**{name: getattr(reference, name) for name in NAMES if hasattr(reference, name)})
    plain.conv2d = lambda *given: reference.conv2d(*given[:6], *given[7:])  # nothing is packed
    plain.adamw = _adamw
    plain.approach = lambda held, given, share: [
        average.update(reference.approach(average, value, share)) for average, value in zip(held, given)
    ]
    plain.sum_of_squares = lambda values: jt.concat([reference.sum_of_squares(value) for value in values]).sum()
    plain.NAME, plain.PACKS, plain.BY_SAMPLE = "cuda", False, False
    with patch.object(operations, "device", lambda: plain):
        yield


def _adamw(parameters: Sequence[Any], gradients: Any, means: Any, squares: Any, step: reference.Step) -> None:
    for arrays in zip(parameters, gradients, means, squares):
        for value, new in zip((arrays[0], *arrays[2:]), reference.adamw(*arrays, step)):
            value.update(new)
