"""What the machine offers, item by item: what is present, what is missing and how to fix it.

Nothing here imports Jittor, which may be just what cannot start.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import size
from medsegdiff.config import choices
from medsegdiff.inference import backends
from medsegdiff.kernels import precision
from medsegdiff.runtime import toolchain
from medsegdiff.runtime.cuda import toolkit
from medsegdiff.runtime.requirements import REQUIREMENTS, Requirement

ONNX = "ONNX"
"""The name of its finding."""
_FIRST, _ANYWHERE = ("System", "Python"), (ONNX, "CPU", "Threads")
"""What decides whether Jittor runs here, and what matters where it does not."""
_LEAST_FREE = 2**30  # bytes; Jittor's core and the kernels of a few networks take some hundred MB


@dataclass(frozen=True)
class Finding:
    """One item of the machine.

    Args:
        name: what was looked for
        detail: what was found, or what is wrong
        remedy: how to fix it; empty where nothing is wrong
        required: whether Jittor does not work until it is fixed
    """

    name: str
    detail: str
    remedy: str = ""
    required: bool = False

    @property
    def mark(self) -> str:
        """How much the gap matters: "required" or "optional"; "ok" where there is none."""
        if not self.remedy:
            return "ok"
        return "required" if self.required else "optional"

    @property
    def text(self) -> str:
        """The detail, with the remedy where there is a gap."""
        return f"{self.detail}; {self.remedy}" if self.remedy else self.detail


def diagnose() -> list[Finding]:
    """Examine everything; a check that fails is itself a finding.

    Where Jittor does not run at all, what else it wants is passed over: nothing of that could be installed.
    """
    found = {name: _examine(name, _LOOKS[name]) for name in _FIRST}
    hopeless = any(finding.mark == "required" for finding in found.values())
    asked = [name for name in _LOOKS if not hopeless or name in (*_FIRST, *_ANYWHERE)]
    return [found.get(name) or _examine(name, _LOOKS[name]) for name in asked]


def _examine(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except InputError as error:
        return Finding(name, "unusable", str(error), required=True)
    except Exception as error:  # a diagnosis must not fail on what it examines
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        remedy = "fix what is marked as required above, then run this again"
        return Finding(name, f"cannot be examined ({line})", remedy, required=True)


def _system() -> Finding:
    here, where = f"{platform.system()} on {platform.machine()}", machine.elsewhere()
    if where:
        return Finding("System", f"{here}, where Jittor does not run", f"to train, use {where}", required=True)
    return Finding("System", here)


def _required(requirement: Requirement) -> Finding:
    found = requirement.look()
    return Finding(requirement.name, found.detail, "" if found.fits else requirement.remedy, required=True)


def _cpu() -> Finding:
    cpu = machine.cpu()
    sets = {"AMX": "amx_tile", "AVX512-BF16": "avx512_bf16", "AVX512": "avx512f", "AVX2": "avx2"}
    present = [name for name, flag in sets.items() if flag in cpu.flags]
    if not cpu.flags or platform.machine() not in ("x86_64", "AMD64"):
        return Finding("CPU", cpu.model)
    detail = f"{cpu.model}: {', '.join(present) or 'no AVX2'}"
    if not present:
        return Finding("CPU", detail, "slow: prefer an x86-64 CPU with AVX2 or newer")
    return Finding("CPU", detail)


def _threads() -> Finding:
    limit = os.environ.get("OMP_NUM_THREADS")
    limited = f"; OMP_NUM_THREADS={limit}" if limit else ""
    return Finding("Threads", f"{machine.usable_cores()} of {os.cpu_count()} cores usable{limited}")


def _onnx() -> Finding:
    missing = [name for name in ("onnx", "onnxruntime") if not backends.is_installed(name)]
    if missing:
        # By themselves these may bring a NumPy 2.
        remedy = "to segment without Jittor, install: pip install 'medsegdiff-jittor[onnx]'"
        return Finding(ONNX, f"missing: {' and '.join(missing)}", remedy)
    openvino = toolchain.package_version("openvino")
    absent = "not OpenVINO: pip install 'medsegdiff-jittor[openvino]'"
    beside = f"and OpenVINO {openvino}, by `backend`" if openvino else absent
    version = toolchain.package_version("onnxruntime") or "by another name"  # as onnxruntime-gpu
    return Finding(ONNX, f"ONNX Runtime {version}, which segments where Jittor cannot; {beside}")


def _gpu() -> Finding:
    newest = toolkit.driver_version()
    if newest is None:
        return Finding("GPU", "no NVIDIA driver (libcuda); the CPU is used", "for a GPU, install NVIDIA's driver")
    done = machine.completed("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
    named = "; ".join(done.stdout.split("\n")[:-1]) if done.returncode == 0 else ""
    cuda = ".".join(map(str, newest))
    return Finding("GPU", f"{named or 'kind unknown: nvidia-smi does not tell'}; the driver runs CUDA up to {cuda}")


def _cuda() -> Finding:
    nvcc, reason = toolchain.find_cuda()
    if nvcc is not None:
        return Finding("CUDA", f"{reason}, {nvcc}; medsegdiff doctor --check-gpu tries it")
    return Finding("CUDA", f"unusable: {reason}; falls back to the CPU", f"for a GPU, {_cuda_remedy(toolkit.find())}")


def _cuda_remedy(found: Optional[toolkit.Toolkit]) -> str:
    if found is None:
        return f"install CUDA: {toolkit.remedy_without_nvcc()}"
    if found.version[0] not in toolkit.MAJORS:
        return "install a CUDA 12 or 13 toolkit, or set nvcc_path to its nvcc"
    if found.missing():
        return f"install: {toolkit.remedy(found.missing(), found.version)}"
    newest = toolkit.driver_version()
    if newest is None or newest[0] < found.version[0]:
        return f"install a driver for CUDA {found.version[0]} or newer"
    return "prepare it: medsegdiff doctor --prepare-cuda"


def _cudnn() -> Finding:
    usable = toolchain.find_cuda()[0] is not None
    found = toolkit.find()
    if found is not None and found.cudnn:
        return Finding("cuDNN", f"{found.cudnn}, {found.library('cudnn')}{'' if usable else '; not used without CUDA'}")
    return Finding("cuDNN", "none; not used without CUDA")


def _precision() -> Finding:
    """No gap: a format that the machine does not offer cannot be installed."""
    if toolchain.find_cuda()[0] is None:
        missing = {name: precision.missing_on_cpu(name, machine.cpu()) for name in choices.PRECISIONS}
    else:
        version = toolchain.command_version("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
        if version is None:
            return Finding("Precision", "fp32; others unknown: nvidia-smi does not tell")
        major, minor = version.split(".")[:2]
        missing = {name: precision.missing_on_gpu(name, 10 * int(major) + int(minor)) for name in choices.PRECISIONS}
    offered = [name for name, reason in missing.items() if not reason]
    if "bf16" in offered and toolchain.find_cuda()[0] is None and precision.of_large_maps() == "fp32":
        offered[offered.index("bf16")] += " (3x3 convolutions of large maps in fp32)"
    lacking = [f"; not {name}: {reason.partition(';')[0]}" for name, reason in missing.items() if reason]
    return Finding("Precision", ", ".join(offered) + "".join(lacking))


def _mpi() -> Finding:
    mpicc, reason = toolchain.find_mpi()
    if mpicc is None:
        remedy = "for several processes, install Open MPI: apt install openmpi-bin libopenmpi-dev"
        return Finding("MPI", f"unusable: {reason}; one process only", remedy)
    return Finding("MPI", f"{reason}, {mpicc}; for: mpirun -np N medsegdiff train")


def _cache() -> Finding:
    folder = Path(toolchain.utilities().cache_path)
    used = sum(map(size, folder.rglob("*")))  # a running process compiles and removes files there
    free = shutil.disk_usage(folder if folder.exists() else toolchain.jittor_home()).free
    state = "the core is compiled" if toolchain.is_compiled() else "medsegdiff doctor --warm compiles the core now"
    detail = f"{folder}: {_readable(used)}, {state}; {_readable(free)} free"
    if free < _LEAST_FREE:
        return Finding("Cache", f"little space: {detail}", "free some, or set JITTOR_HOME to a folder on another disk")
    return Finding("Cache", detail)


def _readable(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


_LOOKS: dict[str, Callable[[], Finding]] = {
    "System": _system,
    **{requirement.name: partial(_required, requirement) for requirement in REQUIREMENTS},
    ONNX: _onnx,
    "CPU": _cpu,
    "Threads": _threads,
    "GPU": _gpu,
    "CUDA": _cuda,
    "cuDNN": _cudnn,
    "Precision": _precision,
    "MPI": _mpi,
    "Cache": _cache,
}
