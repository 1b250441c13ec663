"""What Jittor cannot do without, and the remedies: `medsegdiff doctor` lists it, and a start is refused without it.

Nothing here imports Jittor.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Callable, NamedTuple

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.runtime import compilation, toolchain
from medsegdiff.runtime.importing import place_with_space


class Found(NamedTuple):
    """What a look at the machine found."""

    detail: str
    """What is there, or what is wrong."""
    fits: bool = True


class Requirement(NamedTuple):
    """Something that must be there."""

    name: str
    look: Callable[[], Found]
    remedy: str


def _python() -> Found:
    version = platform.python_version()
    if not (3, 9) <= sys.version_info[:2] <= (3, 12):
        return Found(f"{version}, but Jittor runs on 3.9 to 3.12", fits=False)
    return Found(f"{version}, {sys.executable}")


def _numpy() -> Found:
    version = toolchain.package_version("numpy")
    if version is None:
        return Found("missing", fits=False)
    if int(version.split(".")[0]) >= 2:
        return Found(f"{version}, with which Jittor returns wrong numbers", fits=False)
    return Found(version)


def _jittor() -> Found:
    version, folder = toolchain.package_version("jittor"), place_with_space()
    if folder:
        return Found(f"cannot compile from a path with a space, {folder}", fits=False)
    return Found(version) if version else Found("missing", fits=False)


def _compiler() -> Found:
    path = toolchain.compiler()
    version = toolchain.command_version(path) if path else None
    if version is None:
        return Found(f"does not run: {path}" if path else "missing: Jittor compiles its kernels with it", fits=False)
    if "clang" in Path(str(path)).name:  # a member function as a plain one, which no flag has it take
        return Found(f"{version}, {path}, which refuses Jittor's own sources: they have a cast of GCC's", fits=False)
    return Found(f"{version}, {path}{'' if compilation.is_gcc(str(path)) else '; untried: only g++ was'}")


def _python_header() -> Found:
    header = toolchain.find_python_header()
    return Found(str(header)) if header else Found("missing: Jittor compiles against it", fits=False)


def _onednn() -> Found:
    if not toolchain.wants_onednn():
        return Found("left out, as use_mkl=0 asks: there is a GPU")
    version, used = toolchain.package_version(toolchain.ONEDNN_WHEELS[0]), toolchain.find_jittor_onednn()
    from_pip = toolchain.find_onednn()
    if used.exists():
        return Found(f"{f'{version} from pip' if from_pip else 'Jittor has its own copy'}; Jittor uses {used}")
    if from_pip:
        return Found(f"{version} from pip; the first start copies it to {used}")
    return Found("missing: Jittor computes convolutions with it", fits=False)


REQUIREMENTS = (
    Requirement(
        "Python",
        _python,
        "make an environment with one of these, or to segment use ONNX Runtime (pip install 'medsegdiff-jittor[onnx]')",
    ),
    Requirement("NumPy", _numpy, "install: pip install 'numpy<2'"),
    Requirement("Jittor", _jittor, "install: pip install 'jittor>=1.3.11,<1.4', in an environment without a space"),
    Requirement("g++", _compiler, "install: apt install g++ (or set cc_path to one)"),
    Requirement("Python.h", _python_header, "install: apt install python3-dev"),
    Requirement(
        "oneDNN", _onednn, f"install: pip install {' '.join(f'{name}==2022.2.1' for name in toolchain.ONEDNN_WHEELS)}"
    ),
)


def check() -> None:
    """Refuse a machine on which Jittor cannot work.

    Raises:
        InputError: it is no Linux on x86-64, or one of the `REQUIREMENTS` is missing or unfit.
    """
    machine.check_system()
    for name, look, remedy in REQUIREMENTS:
        found = look()
        if not found.fits:
            raise InputError(f"{name}: {found.detail}; {remedy}")
