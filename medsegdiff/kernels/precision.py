"""What convolutions and matrix products compute in: float32, or the shorter bfloat16 and float16.

Only they do, and only inside: what goes in and comes out is float32, and so are weights, norms, softmax, losses and
everything of the optimiser (mixed precision, Micikevicius et al. 2018).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError

Var = Any  # jt.Var
_KINDS = {"bf16": "bfloat16", "fp16": "float16"}
# Compute capability times ten, from which CUDA's libraries multiply in these at full speed.
_CAPABILITY = {"bf16": 80, "fp16": 70}
# To what the environment may hold oneDNN down, and where it then has no bfloat16.
_HELD_DOWN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_BFLOAT16 = {
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_MIC", "AVX512_MIC_4OPS", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
_LARGE_MAPS = "MEDSEGDIFF_LARGE_MAPS"
_current = "fp32"


def current() -> str:
    """The precision of operations built now; "fp32" unless within `using`."""
    return _current


@contextmanager
def using(precision: str) -> Iterator[None]:
    """Build the operations of the block in `precision`, and their gradients where they are built there too.

    Raises:
        InputError: this machine does not offer it.
    """
    global _current
    check(precision)
    before, _current = _current, precision
    try:
        yield
    finally:
        _current = before


def check(precision: str) -> None:
    """Refuse a precision that cannot be used on the device in use.

    Raises:
        InputError: it cannot.
    """
    if reason := unavailable(precision):
        raise InputError(f"`precision` {precision}: {reason}")


def unavailable(precision: str) -> str:
    """Why `precision` cannot be used on the device in use, with the remedy; empty where it can."""
    if precision == "fp32":  # asked without starting Jittor
        return ""
    from medsegdiff.kernels.operations import device
    from medsegdiff.runtime.backend import jt

    if device().NAME == "cpu":
        return missing_on_cpu(precision, machine.cpu())
    return missing_on_gpu(precision, min(jt.flags.cuda_archs))


def missing_on_cpu(precision: str, cpu: machine.Cpu) -> str:
    """Why the processor `cpu` does not offer `precision`; empty where it does."""
    if precision == "fp16":
        return "is for GPUs, and here is only a CPU; use fp32, or bf16 where medsegdiff doctor says that it can"
    # oneDNN asks for it with AMX too; without it, it would emulate bfloat16 by slower float32.
    if precision == "bf16" and "avx512_bf16" not in cpu.flags:
        return f"the CPU ({cpu.model}) lacks AVX512-BF16; use fp32"
    name, held = next(((name, os.environ[name]) for name in _HELD_DOWN if os.environ.get(name)), ("", ""))
    if precision == "bf16" and held.upper() in _WITHOUT_BFLOAT16:
        return f"the CPU has bfloat16, but {name}={held} in the environment forbids it; unset it, or use fp32"
    return ""


def of_large_maps() -> str:
    """What `bf16` computes 3x3 convolutions of large maps in on the CPU: "bf16", or "fp32" by Winograd's transform.

    bfloat16 is faster where a processor has it; MEDSEGDIFF_LARGE_MAPS in the environment may ask for fewer roundings.

    Raises:
        InputError: it says neither.
    """
    chosen = os.environ.get(_LARGE_MAPS) or "bf16"
    if chosen not in ("bf16", "fp32"):
        raise InputError(f"{_LARGE_MAPS}={chosen}: is neither bf16 nor fp32; correct or unset it")
    return chosen


def missing_on_gpu(precision: str, capability: int) -> str:
    """Why a GPU of this compute capability, times ten, does not offer `precision`; empty where it does."""
    least = _CAPABILITY.get(precision, 0)
    if capability < least:
        has, wants = f"{capability / 10:.1f}", f"{least / 10:.1f}"
        return f"the GPU has compute capability {has} and {precision} wants {wants} or more; use fp32"
    return ""


def narrowed(operation: Callable[..., Var], *values: Var) -> Var:
    """`operation` of float32 `values` in the current precision, in float32 again; its gradients are treated alike.

    This is how the plain Jittor expressions follow the precision.
    """
    if _current == "fp32":
        return operation(*values)
    return operation(*(value.cast(_KINDS[_current]) for value in values)).float32()
