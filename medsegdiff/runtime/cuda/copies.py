"""Where the changed copy of Jittor lies, whether there is one that fits, and how `import jittor` is led to it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Optional

from medsegdiff.runtime.cuda import edits, toolkit

RECORD = "prepared.json"
"""Written into a copy last of all: without it, a copy is not used."""


def parent(home: Path) -> Path:
    """The folder of all copies, in Jittor's home."""
    return home / ".cache" / "jittor" / "medsegdiff-cuda"


def folder(home: Path, cuda: toolkit.Toolkit, jittor_version: str) -> Path:
    """The place of the copy for this release of Jittor, our edits, this CUDA and cuDNN: another place for any other."""
    name = f"jittor-{jittor_version}-{edits.digest()}-cuda-{cuda.cuda}-cudnn-{cuda.cudnn}"
    return parent(home) / name


def prepared(home: Path, cuda: toolkit.Toolkit, jittor_version: str) -> Optional[Path]:
    """The copy that fits, or None where none was prepared or something was updated since."""
    copy = folder(home, cuda, jittor_version)
    complete = (copy / RECORD).is_file() and all(link.exists() for link in (copy / "cuda" / "lib64").glob("lib*.so"))
    return copy if complete else None


def nvcc(copy: Path) -> Path:
    """The compiler to name to Jittor."""
    return copy / "cuda" / "bin" / "nvcc"


def cache(copy: Optional[Path], jittor_utils: Any) -> Path:
    """The folder of what is compiled: of `copy`, or of the installed Jittor where there is none."""
    path = Path(jittor_utils.cache_path)
    return path.with_name(f"{path.name}-{copy.name}") if copy and not path.name.endswith(copy.name) else path


def put_in_front(copy: Path, jittor_utils: Any) -> None:
    """Make `import jittor` import `copy`, compiled into a cache of its own; `jittor_utils` is not copied."""
    if str(copy) not in sys.path:
        sys.path.insert(0, str(copy))
    os.environ.update(
        nvcc_path=str(nvcc(copy)),
        # What Jittor would download: cuTT, no longer needed; CUTLASS, for other networks; NCCL, but the installed one.
        use_cutt="0",
        use_cutlass="0",
        use_nccl=str(int((copy / "cuda" / "include" / "nccl.h").exists())),
        nccl_include_path=str(copy / "cuda" / "include"),
        nccl_lib_path=str(copy / "cuda" / "lib64"),
    )
    found = toolkit.capabilities()
    if len(found) == 1:  # Jittor itself asks a libcuda.so, which not every machine with a libcuda.so.1 has
        os.environ.setdefault("cuda_archs", str(found[0]))
    name = os.environ.get("cache_name", "default")
    if not name.endswith(copy.name):
        # Two copies of Jittor in one cache would compile their core anew at each start.
        os.environ["cache_name"] = f"{name}-{copy.name}"
        sys.path.remove(jittor_utils.cache_path)
        jittor_utils.cache_path = jittor_utils.find_cache_path()
