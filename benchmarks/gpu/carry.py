"""The folder that travels: wheels, images at the network's size, and what an earlier visit brought back."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from benchmarks.gpu import pieces
from benchmarks.gpu.results import NAME
from benchmarks.gpu.setup import DATA, WHEELS
from benchmarks.gpu.visit import ROOT
from medsegdiff.base.errors import InputError
from medsegdiff.runtime.cuda.edits import JITTOR_VERSION

PACKAGES = (
    f"jittor=={JITTOR_VERSION}",
    "numpy==1.26.4",
    *("tqdm", "pillow", "astunparse", "six", "wheel", "packaging"),  # which Jittor needs
    *("PyYAML", "safetensors", "jsonargparse", "rich", "markdown-it-py", "mdurl", "pygments"),
)
"""All that training and parity import, so that they need nothing of the other machine but Python, a compiler and CUDA.

PyTorch, SciPy and matplotlib, which sampling and scores want too, are taken from there: they are too large to travel.
"""
PYTHON = "3.12"
LIMIT = 64 << 20
"""Bytes that travel at most, the repository included."""


def carry(folder: Path, data_dir: Optional[Path], size: int, packages: bool, back: Optional[Path]) -> None:
    """Make `folder`, replacing an earlier one, and print its contents.

    Raises:
        InputError: it is more than can travel.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if packages:
        fetch(folder / WHEELS)
    if data_dir:
        _pack_images(folder / DATA, data_dir, size)
    if back:
        for path in (back / NAME, *pieces.found(back)):
            shutil.copy(path, folder)
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total += path.stat().st_size
            print(f"{path.stat().st_size / 2**20:8.2f} MiB  {path.relative_to(folder)}")
    repository = _repository()
    total += repository
    print(f"{repository / 2**20:8.2f} MiB  the repository\n{total / 2**20:8.2f} MiB  together")
    if total > LIMIT:
        raise InputError(f"{folder}: {total / 2**20:.0f} MiB are more than the {LIMIT >> 20} MiB that can travel")


def _repository() -> int:
    """The bytes of the files that Git knows of; none where this is no repository."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    return sum((ROOT / name).stat().st_size for name in names.split("\0") if name and (ROOT / name).is_file())


def fetch(folder: Path) -> None:
    """Download the wheels for the other machine's Python; what has none is made one here."""
    pip = [sys.executable, "-m", "pip"]
    plain = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    jittor, *others = PACKAGES
    subprocess.run([*pip, "wheel", *plain, "--wheel-dir", str(folder), jittor], check=True)
    there = [f"--platform=manylinux{kind}_x86_64" for kind in ("_2_28", "_2_27", "_2_17", "2014", "1")]
    there += [f"--python-version={PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    subprocess.run([*pip, "download", *plain, *there, "--dest", str(folder), *others], check=True)


def _pack_images(archive: Path, data_dir: Path, size: int) -> None:
    """Images and masks of both splits as the networks see them, as pictures in folders that are found again."""
    with tarfile.open(archive, "w") as tar, tempfile.TemporaryDirectory() as cache:
        for name, picture in _pictures(data_dir, size, Path(cache)):
            about = tarfile.TarInfo(name)
            about.size = len(picture)
            tar.addfile(about, io.BytesIO(picture))


def _pictures(data_dir: Path, size: int, cache: Path) -> Iterator[tuple[str, bytes]]:
    import numpy as np
    from PIL import Image

    from medsegdiff.data.cache import prepare
    from medsegdiff.data.layouts import isic

    for split in ("train", "test"):
        dataset = prepare(isic.find(data_dir, split), size, cache_dir=cache)
        for index, name in enumerate(dataset.ids):
            for kind, array in (("images", dataset.image(index).transpose(1, 2, 0)), ("masks", dataset.mask(index)[0])):
                stream = io.BytesIO()
                Image.fromarray(np.rint(255 * array).astype(np.uint8)).save(stream, "PNG", optimize=True)
                yield f"{kind}/{split}/{name}.png", stream.getvalue()
