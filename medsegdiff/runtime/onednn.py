"""What oneDNN does on this processor."""

from __future__ import annotations

import ctypes
import functools

from medsegdiff.runtime import toolchain

_AMX = 0x3E7  # dnnl_cpu_isa_avx512_core_amx; each set of instructions has the bits of those that it includes


@functools.cache
def has_amx() -> bool:
    """Whether it multiplies bfloat16 by the processor's matrix unit, AMX.

    By its own account: ONEDNN_MAX_CPU_ISA in the environment may forbid it, and the system must allow it.
    """
    loaded, installed = toolchain.find_jittor_onednn(), toolchain.find_onednn()
    if not loaded.exists() and installed is None:
        return False
    library = ctypes.CDLL(str(loaded if loaded.exists() or installed is None else installed[1]))
    return library.dnnl_get_effective_cpu_isa() & _AMX == _AMX
