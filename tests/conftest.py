"""Kernels compiled for another processor than this one: MEDSEGDIFF_TUNING="-march=haswell" pytest tests/kernels."""

import os
import zlib
from pathlib import Path

TUNING = os.environ.get("MEDSEGDIFF_TUNING")


def pytest_configure():
    if TUNING:
        from medsegdiff.runtime.backend import jt

        jt.flags.cc_flags += f" {TUNING} "
        # Jittor's core stays as it is; only its kernels are compiled anew, apart from the usual ones.
        jt.flags.cache_path += f"/tuned-{zlib.crc32(TUNING.encode()):08x}"
        for name in ("jit", "obj_files", "tmp"):
            (Path(jt.flags.cache_path) / name).mkdir(parents=True, exist_ok=True)


def pytest_report_header():
    return f"kernels compiled with {TUNING}" if TUNING else None
