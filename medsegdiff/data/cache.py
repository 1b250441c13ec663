"""Datasets decoded and resized once, into memory-mapped arrays keyed by the content of their files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image
from tqdm import tqdm

from medsegdiff.base import machine
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, replacing, writing
from medsegdiff.data.cases import Case, check_pair
from medsegdiff.data.digests import digests
from medsegdiff.data.foreground import warnings
from medsegdiff.data.integrity import Check, checksums, is_whole
from medsegdiff.data.square import square, to_input
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image

FORMAT_VERSION = 1  # raise it whenever the arrays made from the same files change
_LARGEST = 2048  # side of the arrays, in pixels
_RESIZE = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}


@dataclass(frozen=True)
class Prepared:
    """A dataset at network resolution; the arrays are read-only maps of files."""

    ids: list[str]
    images: np.memmap  # uint8 (N, S, S, 3), RGB
    masks: Optional[np.memmap]  # uint8 (N, S, S) of class indices, 0 is background
    original_sizes: list[tuple[int, int]]  # (height, width) in pixels
    fingerprint: str  # hex digest of the content
    num_classes: int = 2  # background included
    check: Optional[Check] = None  # still reading the arrays

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (3, S, S), RGB in [0, 1].

        Raises:
            InputError: the arrays are damaged.
        """
        self._checked()
        return to_input(self.images[index])

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (num_classes - 1, S, S) of {0, 1}: a channel for each class but the background.

        Raises:
            InputError: the arrays are damaged.
            ValueError: the dataset has no masks.
        """
        if self.masks is None:
            raise ValueError("this dataset has no masks")
        self._checked()
        return (self.masks[index] == np.arange(1, self.num_classes)[:, None, None]).astype(np.float32)

    def _checked(self) -> None:
        """Wait for the check, if there is one: nothing is computed from arrays that are damaged."""
        if self.check is not None and not self.check.passed():
            shutil.rmtree(self.check.entry, ignore_errors=True)
            raise InputError(
                f"{self.check.entry}: the cached arrays were damaged; run the same again to make them anew"
            )


def default_cache() -> Path:
    """`$MEDSEGDIFF_CACHE`, else `medsegdiff` in the user's cache folder."""
    chosen = os.environ.get("MEDSEGDIFF_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or machine.home() / ".cache") / "medsegdiff"


def prepare(
    cases: Sequence[Case],
    size: int,
    cache_dir: Optional[Path] = None,
    mask_resize: str = "bilinear",
    progress: bool = True,
    num_classes: int = 2,
    check_later: bool = False,
) -> Prepared:
    """Open the dataset's arrays, made now if these files were not prepared at this size before.

    Images are resized with Pillow's antialiased bilinear filter. Masks (see `read_mask`; foreground is above one half)
    are resized as 0 and 255 with the same filter and are 1 wherever the result is above 0, as in the published
    project; with `mask_resize="nearest"` by the nearest pixel. They are kept only if every case has one. Where arrays
    are made, what is unlikely of the masks is said (see `foreground.warnings`).

    With more than two classes, background included, the masks' files hold class indices (see `read_labels`).
    Those are always resized by the nearest pixel, whatever `mask_resize` says: there is no class between two.

    The arrays live in `datasets/` below `cache_dir` (see `default_cache`), under a digest of every source
    file's bytes, the ids, the size, the mode and the number of classes. Several processes may ask at once:
    one works, the others wait and use its result. A damaged entry is made anew: its checksums are compared before it
    is used. With `check_later` that goes on in the background, and the first image or mask waits for it.

    Raises:
        InputError: no cases, a size, mode or number of classes that makes no sense, an unreadable file, a
            mask of another size than its image or with a class too many, or a cache folder that cannot be
            written.
    """
    if not cases:
        raise InputError("no images to prepare; check the data folder")
    check_bounds("--image-size", size, 1, _LARGEST)
    check_bounds("--num-classes", num_classes, 2, 256)
    if mask_resize not in _RESIZE:
        raise InputError(f'mask resize must be "bilinear" or "nearest", not "{mask_resize}"')
    folder = make_folder(
        Path(cache_dir or default_cache()) / "datasets", "give another --cache-dir or $MEDSEGDIFF_CACHE"
    )
    with_masks = all(case.mask is not None for case in cases)
    form = _Form(size, num_classes, (mask_resize if num_classes == 2 else "nearest") if with_masks else None)
    fingerprint = _fingerprint(cases, form, folder / "digests.json", progress)
    entry = folder / fingerprint
    ids = [case.id for case in cases]
    prepared = _open(entry, ids, form)
    check = Check(entry) if prepared is not None else None
    if check is None or not (check_later or check.passed()):
        with _lock(folder / f".{fingerprint}.lock"):
            prepared, check = _open(entry, ids, form), None
            if prepared is None or not is_whole(entry):
                # Whoever holds the lock is the only builder, so these belong to one that was killed.
                for stale in folder.glob(f".{fingerprint}.*.tmp"):
                    shutil.rmtree(stale, ignore_errors=True)
                with replacing(entry) as beside:
                    _build(beside, cases, form, progress)
                prepared = _open(entry, ids, form)
                for line in warnings(prepared.masks, num_classes) if prepared and with_masks else []:
                    tqdm.write(f"warning: {line}", file=sys.stderr)
    if prepared is None:
        raise InputError(f"{entry}: cannot be read back after writing; choose another cache folder")
    return replace(prepared, check=check if check_later else None)


class _Form(NamedTuple):
    """What arrays are made of the files."""

    size: int
    num_classes: int
    mask_resize: Optional[str]  # None: there are no masks

    def mask(self, path: Path) -> np.ndarray:
        """A file's mask as class indices, uint8 (H, W); the foreground of one class is 255."""
        if self.num_classes == 2:
            return (read_mask(path) > 0.5) * np.uint8(255)
        labels = read_labels(path)
        highest = int(labels.max())
        if highest >= self.num_classes:
            raise InputError(
                f"{path}: holds class {highest}, but with --num-classes {self.num_classes} they are 0 to "
                f"{self.num_classes - 1}; give --num-classes {highest + 1}, or correct the mask"
            )
        return labels

    def resized(self, mask: np.ndarray) -> np.ndarray:
        """What `mask` returns as class indices, uint8 (size, size)."""
        resized = np.asarray(Image.fromarray(mask).resize((self.size, self.size), _RESIZE[self.mask_resize]))
        return resized > 0 if self.num_classes == 2 else resized


def _fingerprint(cases: Sequence[Case], form: _Form, index: Path, progress: bool) -> str:
    """A digest of all that decides the arrays' content, and of nothing else, such as where files lie."""
    with_masks = form.mask_resize is not None
    sources = [path for case in cases for path in (case.image, case.mask if with_masks else None) if path]
    known = digests(sources, index, progress)
    key = [
        FORMAT_VERSION,
        form.size,
        form.mask_resize,
        [[case.id, known[case.image], known[case.mask] if with_masks else None] for case in cases],
    ]
    if with_masks and form.num_classes > 2:
        key.append(form.num_classes)
    return hashlib.blake2b(json.dumps(key).encode(), digest_size=20).hexdigest()


def _build(folder: Path, cases: Sequence[Case], form: _Form, progress: bool) -> None:
    folder.mkdir()
    shape = (len(cases), form.size, form.size)
    images = _allocate(folder / "images.npy", (*shape, 3))
    masks = _allocate(folder / "masks.npy", shape) if form.mask_resize else None

    def convert(index: int) -> tuple[int, int]:
        case = cases[index]
        image = read_image(case.image)
        if masks is not None:
            mask = form.mask(case.mask)
            check_pair(case, image, mask)
            masks[index] = form.resized(mask)
        images[index] = square(image, form.size)
        return image.shape[:2]

    pool = ThreadPoolExecutor(2)
    try:
        results = pool.map(convert, range(len(cases)))
        sizes = list(
            tqdm(results, total=len(cases), desc="Preparing", unit="image", disable=not progress),
        )
    finally:
        pool.shutdown(cancel_futures=True)
    for array in (images, masks):
        if array is not None:
            array.flush()
    meta = {"ids": [case.id for case in cases], "original_sizes": sizes}
    meta["checksums"] = checksums(folder, meta)
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new array file whose blocks are taken now: a full disk is an error here, a crash in a map."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _open(folder: Path, ids: list[str], form: _Form) -> Optional[Prepared]:
    """The entry of the images `ids` in `folder`; None if it is absent or not one."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r") if form.mask_resize else None
        sizes = [(height, width) for height, width in meta["original_sizes"]]
        _ = meta["checksums"]  # entries from before there were any are made anew
        prepared = Prepared(meta["ids"], images, masks, sizes, folder.name, form.num_classes)
        shape = (len(ids), form.size, form.size)
        shapes = [(images, (*shape, 3))] + ([(masks, shape)] if form.mask_resize else [])
        whole = all(array.shape == expected and array.dtype == np.uint8 for array, expected in shapes)
    except Exception:  # of a damaged header NumPy raises nearly anything
        return None
    return prepared if whole and prepared.ids == ids and len(sizes) == len(ids) else None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold `path` alone. The system frees it when its holder dies; the file goes with its last holder."""
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(handle)
        while os.fstat(handle).st_nlink == 0:  # its holder removed it while this process waited
            os.close(handle)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            _wait(handle)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _wait(handle: int) -> None:
    with contextlib.suppress(OSError):  # of file systems without locks: then several may work, each for itself
        fcntl.flock(handle, fcntl.LOCK_EX)
