"""Trees that look like CUDA."""

from __future__ import annotations

from pathlib import Path


def fake_nvcc(root: Path, version: str = "13.0") -> Path:
    """A compiler that answers what it is asked for, and writes nothing."""
    nvcc = root / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        f'#!/bin/sh\ncase "$1" in\n--version) echo "Cuda compilation tools, release {version}, V{version}.88" ;;\n'
        f'--dryrun) echo "#$ TOP={root}/bin/.." >&2 ;;\nesac\n'
    )
    nvcc.chmod(0o755)
    return nvcc


def fake_headers(folder: Path, *names: str) -> None:
    """Empty header files in `folder`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def fake_cudnn(root: Path, version: str = "9.28.1", library: str = "lib/libcudnn.so.9") -> None:
    """cuDNN below `root`."""
    fake_headers(root, "include/cudnn.h", library)
    names = zip(("MAJOR", "MINOR", "PATCHLEVEL"), version.split("."))
    text = "".join(f"#define CUDNN_{name} {number}\n" for name, number in names)
    (root / "include" / "cudnn_version.h").write_text(text)


def fake_cuda(root: Path, version: str = "13.0", lib: str = "lib64") -> Path:
    """A whole toolkit but for cuDNN; returns its nvcc."""
    headers = ("cuda_runtime.h", "cublas_v2.h", "curand.h", "cufft.h", "cusparse.h", "cccl/cub/cub.cuh")
    fake_headers(root / "include", *headers)
    fake_headers(root / lib, *(f"lib{name}.so.13" for name in ("cudart", "cublas", "curand", "cufft", "cusparse")))
    return fake_nvcc(root, version)
