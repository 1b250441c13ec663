"""The CUDA toolkit and NVIDIA's libraries, of the system or from pip, brought into the folder that Jittor wants."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from medsegdiff.base import machine

MAJORS = (12, 13)
"""The releases of CUDA that a copy of Jittor is made for."""

_MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
_USUAL = Path("/usr/local/cuda/bin/nvcc")
# These hold much else.
_SYSTEM_HEADERS = (Path("/usr/include"), Path(f"/usr/include/{_MACHINE}-linux-gnu"))
_SYSTEM_LIBRARIES = (Path(f"/usr/lib/{_MACHINE}-linux-gnu"),)


class Part(NamedTuple):
    """A part of CUDA that Jittor compiles against."""

    name: str
    header: str
    library: str = ""
    """The library's name, without "lib" and ".so"; empty where headers are all there is."""
    wheel: str = ""
    """What pip installs it from; empty for a part of CUDA's own toolkit."""


_CUDNN = Part("cudnn", "cudnn.h", "cudnn", "nvidia-cudnn-cu{major}==9.*")
_NCCL = Part("nccl", "nccl.h", "nccl", "nvidia-nccl-cu{major}")
PARTS = (
    Part("cudart", "cuda_runtime.h", "cudart"),
    Part("cccl", "cub/cub.cuh"),
    Part("cublas", "cublas_v2.h", "cublas"),
    Part("curand", "curand.h", "curand"),
    Part("cufft", "cufft.h", "cufft"),
    Part("cusparse", "cusparse.h", "cusparse"),
    _CUDNN,
)
"""What Jittor does not start without."""


class Toolkit(NamedTuple):
    """A CUDA compiler with the folders that belong to it."""

    nvcc: Path
    version: tuple[int, int]
    headers: tuple[Path, ...]
    """Folders of header files; of two files of one name the first counts."""
    libraries: tuple[Path, ...]
    """Folders of libraries, likewise."""

    @property
    def cuda(self) -> str:
        """The version in the usual form: "13.0"."""
        return ".".join(map(str, self.version))

    @property
    def cudnn(self) -> Optional[str]:
        """The version of cuDNN, or None."""
        header = self.header("cudnn_version.h")
        if header is None:
            return None
        text = header.read_text(encoding="utf-8", errors="replace")
        numbers = [re.search(rf"#define CUDNN_{name} +(\d+)", text) for name in ("MAJOR", "MINOR", "PATCHLEVEL")]
        return ".".join(number[1] for number in numbers if number) or None

    def header(self, name: str) -> Optional[Path]:
        """The header file of this name, or None."""
        folders = (inner for folder in self.headers for inner in (folder, folder / "cccl"))  # nvcc looks there itself
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    def library(self, name: str) -> Optional[Path]:
        """The shared library of this name, or None."""
        return next((found for folder in self.libraries for found in sorted(folder.glob(f"lib{name}.so*"))), None)

    def missing(self) -> tuple[Part, ...]:
        """The parts that are not there."""
        return tuple(part for part in PARTS if not self._has(part))

    def _has(self, part: Part) -> bool:
        return bool(self.header(part.header) and (not part.library or self.library(part.library)))


def find() -> Optional[Toolkit]:
    """The toolkit of `$nvcc_path`, of pip, of the path or of the usual folder; None where there is none."""
    wheels = _wheels()
    candidates = [
        os.environ.get("nvcc_path"),
        *(wheels / f"cu{major}/bin/nvcc" for major in reversed(MAJORS) if wheels),
        shutil.which("nvcc"),
        _USUAL,
    ]
    nvcc = next((Path(path) for path in candidates if path and Path(path).is_file()), None)
    return describe(nvcc, wheels) if nvcc else None


def describe(nvcc: Path, wheels: Optional[Path] = None) -> Optional[Toolkit]:
    """The toolkit that `nvcc` belongs to, completed by what pip installed below `wheels`; None if it does not run."""
    said = _output(nvcc, "--version")
    version = re.search(r"release (\d+)\.(\d+)", said)
    if version is None:
        return None
    # Wrappers and links abound; the compiler itself knows where its folders are.
    top = re.search(r"^#\$ TOP=(.*)$", _output(nvcc, "--dryrun", "-x", "cu", os.devnull, "-c"), re.MULTILINE)
    root = Path(os.path.realpath(top[1].strip() if top else nvcc.resolve().parent.parent))
    places = [root, root / f"targets/{_MACHINE}-linux"]
    if wheels:
        places += [place for place in sorted(wheels.iterdir()) if _is_for(place.name, int(version[1]))]
    return Toolkit(
        nvcc=root / "bin" / "nvcc" if (root / "bin" / "nvcc").is_file() else nvcc,
        version=(int(version[1]), int(version[2])),
        headers=_present([*(place / "include" for place in places), *_SYSTEM_HEADERS]),
        libraries=_present([*(place / lib for place in places for lib in ("lib64", "lib")), *_SYSTEM_LIBRARIES]),
    )


def remedy(missing: Sequence[Part], version: tuple[int, int]) -> str:
    """The command that installs `missing` for CUDA of this version."""
    cuda = ".".join(map(str, version))
    toolkit = ",".join(part.name for part in missing if not part.wheel)
    wheels = [f"cuda-toolkit[{toolkit}]=={cuda}.*"] if toolkit else []
    wheels += [part.wheel.format(major=version[0]) for part in missing if part.wheel]
    return "pip install " + " ".join(f"'{wheel}'" for wheel in wheels)


def remedy_without_nvcc() -> str:
    """The command that installs everything."""
    return remedy((Part("nvcc", ""), *PARTS, _NCCL), (13, 0))


def lay_out(toolkit: Toolkit, folder: Path) -> Path:
    """Make `folder` what Jittor takes for CUDA's home, of links; returns its nvcc.

    Jittor wants the compiler, headers and libraries in `bin`, `include` and `lib64` of one folder, the libraries
    under names without versions, which pip's have not.
    """
    for name in ("bin", "include", "lib64"):
        (folder / name).mkdir(parents=True)
    nvcc = folder / "bin" / "nvcc"
    # A script, as Jittor would follow a link and take the home at its other end.
    nvcc.write_text(f'#!/bin/sh\nexec "{toolkit.nvcc}" "$@"\n', encoding="utf-8")
    nvcc.chmod(0o755)
    for source in _entries(toolkit.headers, "cu*", "nccl*"):
        _link(folder / "include" / source.name, source)
    for source in _entries(toolkit.libraries, "libcu*", "libnv*", "libnccl*"):
        if ".so" in source.name or source.suffix == ".a":
            _link(folder / "lib64" / source.name, source)
            _link(folder / "lib64" / re.sub(r"\.so\..*$", ".so", source.name), source)
    return nvcc


def driver_version() -> Optional[tuple[int, int]]:
    """The newest CUDA that the installed NVIDIA driver runs, or None without a driver."""
    driver = _driver()
    version = ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def capabilities() -> tuple[int, ...]:
    """The compute capabilities of the GPUs times ten, such as 90, each once; empty where the driver names none."""
    driver, count = _driver(), ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(sorted({_capability(driver, index) for index in range(count.value)}))


def _driver() -> Optional[ctypes.CDLL]:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _capability(driver: ctypes.CDLL, index: int) -> int:
    device, value, numbers = ctypes.c_int(), ctypes.c_int(), []
    driver.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    return 10 * numbers[0] + numbers[1]


def _output(command: Path, *arguments: str) -> str:
    done = machine.completed(str(command), *arguments)
    return done.stdout + done.stderr


def _wheels() -> Optional[Path]:
    """The folder that NVIDIA's wheels share."""
    found = importlib.util.find_spec("nvidia")
    folders = list(found.submodule_search_locations or ()) if found else []
    return Path(folders[0]) if folders else None


def _is_for(folder: str, major: int) -> bool:
    """Whether what pip installed into `folder` is for this CUDA.

    CUDA's own wheels share a folder, as cu13, from 13 on; before, each had one, as those of cuDNN and NCCL still have.
    """
    if re.fullmatch(r"cu\d+", folder):
        return folder == f"cu{major}"
    try:
        return bool(importlib.metadata.version(f"nvidia-{folder.replace('_', '-')}-cu{major}"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _present(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _entries(folders: Sequence[Path], *ours: str) -> Iterator[Path]:
    """What lies in `folders`; of the system's, which hold everything else too, only names like `ours`."""
    for folder in folders:
        for pattern in ours if folder in (*_SYSTEM_HEADERS, *_SYSTEM_LIBRARIES) else ("*",):
            yield from sorted(folder.glob(pattern))


def _link(link: Path, target: Path) -> None:
    if not os.path.lexists(link):
        link.symlink_to(target)
