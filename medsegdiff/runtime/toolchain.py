"""What Jittor needs from the machine before its first import: found, prepared, or refused.

Nothing here imports Jittor. `prepare()` is called once by `medsegdiff.runtime.backend`; the `find_*`
functions also serve `medsegdiff doctor`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any, Optional

from medsegdiff.base import machine, ranks, screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing, writing
from medsegdiff.base.reading import read_json
from medsegdiff.runtime import cache, compilation, threads
from medsegdiff.runtime.cuda import copies, toolkit
from medsegdiff.runtime.importing import as_before, check_variables, place_with_space

ONEDNN_WHEELS = ("onednn-cpu-gomp", "onednn-devel-cpu-gomp")
# The folder in which Jittor looks for the oneDNN that it would otherwise download.
_JITTOR_ONEDNN = "dnnl_lnx_2.2.0_cpu_gomp"


def command_version(command: str, *arguments: str) -> Optional[str]:
    """The version number that `command --version` prints, or None if it does not run."""
    done = machine.completed(command, *(arguments or ("--version",)))
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found.group() if done.returncode == 0 and found else None


def package_version(name: str) -> Optional[str]:
    """The installed version of a Python distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def utilities(nvcc: Optional[str] = None) -> Any:
    """The module `jittor_utils`, which chooses the cache's folder when it is first imported.

    Args:
        nvcc: the CUDA compiler that Jittor is to use, empty for none; by default the one that is found

    Raises:
        InputError: that folder cannot be written, code in it cannot be run, Jittor lies below a folder with a space, or
            a variable of its own makes no sense.
    """
    if "jittor_utils" in sys.modules:
        return sys.modules["jittor_utils"]
    if folder := place_with_space():  # some minutes later no kernel would compile
        raise InputError(f"{folder}: Jittor cannot compile from a path with a space; make an environment without one")
    check_variables()
    os.environ.setdefault("log_silent", "1")
    os.environ["nvcc_path"] = (find_cuda()[0] or "") if nvcc is None else nvcc
    os.environ.setdefault("cache_name", compilation.cache_name())
    folder = jittor_home() / ".cache" / "jittor"
    cache.check_home(folder)
    with writing(folder, cache.ELSEWHERE), compilation.keyed(), as_before(jittor_home()):
        module = importlib.import_module("jittor_utils")
        cache.check(Path(module.cache_path))
    return module


def jittor_home() -> Path:
    """The folder under which Jittor keeps its cache: `$JITTOR_HOME`, or one that it noted, or the user's.

    Raises:
        InputError: there is none.
    """
    if chosen := os.environ.get("JITTOR_HOME"):
        return Path(chosen).absolute()
    home = machine.home()
    try:
        return Path(read_json(home / ".cache" / "jittor" / "config.json")["JITTOR_HOME"]).absolute()
    except (InputError, KeyError, TypeError):
        return home


def compiler() -> Optional[str]:
    """The C++ compiler that Jittor will use: `$cc_path`, or the g++ on the path."""
    return os.environ.get("cc_path") or shutil.which("g++")


def find_python_header() -> Optional[Path]:
    """`Python.h`, without which no kernel can be compiled."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return header if header.is_file() else None


def find_onednn() -> Optional[tuple[Path, Path]]:
    """(include folder, library file) of the oneDNN that pip installed, or None."""
    try:
        files = [importlib.metadata.files(name) or [] for name in ONEDNN_WHEELS]
    except importlib.metadata.PackageNotFoundError:
        return None
    located = [Path(entry.locate()).resolve() for group in files for entry in group]
    library = next((path for path in located if path.name.startswith("libdnnl.so") and path.is_file()), None)
    header = next((path for path in located if path.name == "dnnl.hpp" and path.parent.name == "include"), None)
    return (header.parent, library) if library and header else None


def wants_onednn() -> bool:
    """Whether Jittor needs oneDNN: not with `use_mkl=0` in the environment where a GPU computes."""
    return os.environ.get("use_mkl") != "0" or toolkit.driver_version() is None


def find_jittor_onednn() -> Path:
    """The oneDNN library that Jittor loads; it need not exist before the first start."""
    return jittor_home() / ".cache" / "jittor" / "mkl" / _JITTOR_ONEDNN / "lib" / "libmkldnn.so"


def find_cuda() -> tuple[Optional[str], str]:
    """(nvcc, reason): the CUDA compiler Jittor can use, or None and why not."""
    newest = toolkit.driver_version()
    if newest is None:
        return None, "no NVIDIA driver (libcuda)"
    found = toolkit.find()
    if found is None:
        return None, "no nvcc found"
    if found.version[0] > newest[0]:
        return None, f"{found.nvcc} is CUDA {found.cuda}, and the driver runs CUDA up to {newest[0]}.{newest[1]} only"
    copy = find_copy()
    if copy is not None:
        return str(copies.nvcc(copy)), f"CUDA {found.cuda}, cuDNN {found.cudnn}, by the prepared copy of Jittor"
    plain = toolkit.describe(found.nvcc)  # Jittor as it comes does not look among pip's packages
    missing = [part.name for part in plain.missing()] if plain else ["everything"]
    if missing:
        return None, f"{found.nvcc} is CUDA {found.cuda} without {', '.join(missing)} beside it"
    if plain.version[0] > 12 or plain.cudnn is None or not plain.cudnn.startswith("8."):
        return None, f"{found.nvcc} is CUDA {plain.cuda} with cuDNN {plain.cudnn}, which Jittor 1.3.11 does not know"
    return str(plain.nvcc), f"CUDA {plain.cuda}, cuDNN {plain.cudnn}"


def find_copy() -> Optional[Path]:
    """The copy of Jittor that `medsegdiff doctor --prepare-cuda` made for the installed CUDA, or None."""
    newest = toolkit.driver_version()
    found = toolkit.find() if newest else None
    if found is None or found.version[0] > newest[0]:
        return None
    return copies.prepared(jittor_home(), found, package_version("jittor") or "")


def find_mpi() -> tuple[Optional[str], str]:
    """(mpicc, reason): the compiler of Open MPI's programs that Jittor can use, or None and why not."""
    mpicc = os.environ.get("mpicc_path") or shutil.which("mpicc")
    if mpicc is None:
        return None, "no mpicc found"
    version = command_version(mpicc, "--showme:version")  # which other kinds of MPI do not understand
    if version is None:
        return None, f"{mpicc} is not Open MPI's"
    folders = machine.completed(mpicc, "--showme:incdirs").stdout.split()
    if not any((Path(folder) / "mpi.h").is_file() for folder in folders):
        return None, f"{mpicc} found, but not mpi.h"
    if shutil.which("mpirun") is None:
        return None, f"{mpicc} found, but no mpirun"
    return mpicc, f"Open MPI {version}"


def _prepare_onednn() -> None:
    """Lay pip's oneDNN where Jittor looks for its own, unless one is there already."""
    if not wants_onednn() or find_jittor_onednn().exists():
        return
    folder = find_jittor_onednn().parent.parent
    headers, library = find_onednn()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as beside:
        (beside / "lib").mkdir(parents=True)
        shutil.copytree(headers, beside / "include")
        # Copies, not links: the cache outlives the environment that it was made from.
        shutil.copy(library, beside / "lib" / "libmkldnn.so")
        (beside / "lib" / "libdnnl.so.2").symlink_to("libmkldnn.so")


def _prepare_mpi() -> None:
    """Let Jittor use MPI only where several processes were started: else it would compile and load it for nothing."""
    os.environ["use_mpi"] = str(int(ranks.started_together()))
    if not ranks.started_together():
        if ranks.number("PMI_SIZE", 1) > 1:
            raise InputError(
                "several processes were started by another MPI than Open MPI, but Jittor supports only Open MPI; "
                "start them with Open MPI's mpirun (Debian: apt install openmpi-bin libopenmpi-dev)"
            )
        return
    mpicc, reason = find_mpi()
    if mpicc is None:
        raise InputError(
            f"started by mpirun, but Jittor cannot compile its part of MPI: {reason}; "
            "install it (Debian: apt install libopenmpi-dev), or start one process without mpirun"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(ranks.fair_threads()))


def is_compiled() -> bool:
    """Whether Jittor's core was compiled before for this machine, compiler and Python."""
    return any(copies.cache(find_copy(), utilities()).rglob("jittor_core*.so"))


def prepare(copy: Optional[Path] = None) -> None:
    """Make `import jittor` succeed without a network, on a machine that meets the `requirements`.

    Args:
        copy: the copy of Jittor for CUDA to import; by default the prepared one, if it fits and there is a driver

    Raises:
        InputError: Jittor's cache cannot be used, a variable makes no sense to OpenMP, or processes were started by an
            MPI that does not fit.
    """
    copy = copy or find_copy()
    nvcc, reason = (str(copies.nvcc(copy)), "") if copy else find_cuda()
    if nvcc is None and toolkit.driver_version() is not None:
        screen.note(f"GPU not used: {reason}; medsegdiff doctor says what to do")
    # Else Jittor imports PyTorch where it finds it: 1.3 s and 180 MB of this process.
    os.environ.setdefault("FIX_TORCH_ERROR", "0")
    # Else cuDNN and cuBLAS round the factors of float32 products to ten bits on most GPUs.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

    jittor_utils = utilities(nvcc or "")
    os.environ["nvcc_path"] = nvcc or ""
    from jittor_utils import install_cuda, lock

    if nvcc is None:
        install_cuda.install_cuda = lambda: None  # it would download one
    # Jittor asks python3-config, which an environment seldom has; the interpreter itself has both.
    jittor_utils._py3_include_path = f'-I"{sysconfig.get_paths()["include"]}"'
    jittor_utils._py3_extension_suffix = sysconfig.get_config_var("EXT_SUFFIX")
    _prepare_mpi()
    threads.prepare()
    with lock.lock_scope():  # other processes may be about to do the same
        _prepare_onednn()
    if copy is not None:
        with compilation.keyed():
            copies.put_in_front(copy, jittor_utils)


def announce_kernels() -> None:
    """Tell the user why the first network evaluation takes long; where some kernels are there, Jittor itself does."""
    if not any((Path(utilities().cache_path) / "jit").glob("*.so")):
        screen.note("compiling the network's kernels, about half a minute, once")
