"""Datasets decoded and resized once, an entry for each case, keyed by the content of its files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from medsegdiff.base import machine, screen
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, make_folder, replacing, writing
from medsegdiff.data.cases import Case
from medsegdiff.data.digests import digests
from medsegdiff.data.entries import RESIZE, Entry, Form, build
from medsegdiff.data.foreground import warnings
from medsegdiff.data.scaling import EIGHT_BITS
from medsegdiff.data.spec import DataSpec
from medsegdiff.data.square import to_input
from medsegdiff.io.volumes import is_volume, slices_of

FORMAT_VERSION = 1  # raise it whenever the arrays made from the same files change
DATASETS, ENTRIES = "datasets", "cases"
"""Folders of the cache: of lists of cases, and of what is kept of each."""
INDEX = "digests.json"
"""In the latter, see `digests`."""
_LARGEST = 2048  # side of the arrays, in pixels
_SPARE = 1 << 28  # bytes of the disk that stay free


class Prepared:
    """A dataset at network resolution, slice by slice; a picture is one slice."""

    def __init__(
        self, cases: Sequence[Case], paths: Sequence[Path], form: Form, fingerprint: str, skip_blank: bool
    ) -> None:
        self.cases, self.form, self.fingerprint = list(cases), form, fingerprint
        self._paths = list(paths)
        self._entries: dict[int, Entry] = {}
        self.slices: list[tuple[int, int]] = []
        """Of each slice the case, by its place in `cases`, and its own place there."""
        self.ids: list[str] = []
        """Of a picture the case's, of a slice `ID:NUMBER`."""
        for place, case in enumerate(self.cases):
            blank = self._entry(place).about.blank
            chosen = [number for number, empty in enumerate(blank) if not (skip_blank and empty)]
            self.slices += [(place, number) for number in chosen]
            self.ids += [f"{case.id}:{number}" for number in chosen] if is_volume(case.image) else [case.id]
        if not self.slices:
            raise InputError("all slices are blank; look at the files, or leave out `skip_blank`")

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def groups(self) -> list[str]:
        """The patient of each slice."""
        return [self.cases[place].group for place, _ in self.slices]

    @property
    def num_classes(self) -> int:
        """Classes, background included."""
        return self.form.num_classes

    @property
    def has_masks(self) -> bool:
        """Whether each case has one."""
        return self.form.mask_resize is not None

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each slice in its file, in pixels."""
        return [(about.height, about.width) for about in (self._entry(place).about for place, _ in self.slices)]

    def depth(self, case: int) -> int:
        """How many slices a case has, blank ones too."""
        return len(self._entry(case))

    @property
    def shares(self) -> np.ndarray:
        """The share of each foreground class in each mask, float64 (N, num_classes - 1)."""
        return np.array([self._entry(place).about.shares[number] for place, number in self.slices])

    @property
    def corners(self) -> np.ndarray:
        """Whether all four corners of each mask are foreground, bool (N,)."""
        return np.array([self._entry(place).about.corners[number] for place, number in self.slices])

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (C, S, S) in [0, 1].

        Raises:
            InputError: what is cached is damaged, and the files that it was made of have changed.
        """
        return to_input(self._read(index, Entry.image))

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (num_classes - 1, S, S) of {0, 1}: a channel for each class but the background.

        Raises:
            InputError: as `image`.
            ValueError: the dataset has no masks.
        """
        if not self.has_masks:
            raise ValueError("this dataset has no masks")
        mask = self._read(index, Entry.mask)
        return (mask == np.arange(1, self.num_classes)[:, None, None]).astype(np.float32)

    def _read(self, index: int, read: Callable[[Entry, int], np.ndarray]) -> np.ndarray:
        place, number = self.slices[index]
        try:
            return read(self._entry(place), number)
        except ValueError:
            self._entries[place] = self._made_anew(place)
            return read(self._entries[place], number)

    def _entry(self, place: int) -> Entry:
        if place not in self._entries:
            try:
                self._entries[place] = Entry(self._paths[place], self.form)
            except ValueError:
                self._entries[place] = self._made_anew(place)
        return self._entries[place]

    def _made_anew(self, place: int) -> Entry:
        """The entry of a case whose file was damaged or removed."""
        path, case = self._paths[place], self.cases[place]
        folder = path.parents[1]
        if _path(folder, case, self.form, digests(case.files, folder / INDEX, False)) != path:
            raise InputError(f"{case.image}: was changed meanwhile; run the same again")
        _build(folder, [(path, case)], self.form, False)
        return Entry(path, self.form)


def default_cache() -> Path:
    """`$MEDSEGDIFF_CACHE`, else `medsegdiff` in the user's cache folder."""
    chosen = os.environ.get("MEDSEGDIFF_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medsegdiff"


def prepare(
    cases: Sequence[Case],
    size: int,
    cache_dir: Optional[Path] = None,
    mask_resize: str = "bilinear",
    progress: bool = True,
    num_classes: int = 2,
    spec: Optional[DataSpec] = None,
    skip_blank: bool = False,
) -> Prepared:
    """Open the dataset's slices; those of cases that were not prepared in this form before are made now.

    See `Form` for how images and masks are resized; masks of volumes and of more than two classes are always resized by
    the nearest pixel. Masks are kept only if every case has one. Where something is made, what is unlikely of the
    masks is said (see `foreground.warnings`).

    There is a file for each case in `cases/` below `cache_dir` (see `default_cache`), under a digest of the bytes of
    all its files and of the form. So a case that is added is all that is prepared, and what was prepared when a
    process was killed stays. Several processes may ask at once: one works, the others wait and use its result. A
    damaged file is found when it is opened, and made anew.

    Args:
        cases: what to prepare
        size: side of the slices in pixels
        cache_dir: where they are kept
        mask_resize: "bilinear" or "nearest"
        progress: whether to show it
        num_classes: background included; those of `spec` where it has labels
        spec: how the files are read; by default as 8-bit RGB pictures
        skip_blank: leave out slices that hold one value alone

    Raises:
        InputError: no cases, a size, resizing or number of classes that makes no sense, an unreadable file, a
            mask of another size than its image or with a class too many, or a cache folder that cannot be
            written or is too small.
    """
    if not cases:
        raise InputError("no images to prepare; check the data folder")
    check_bounds("`image_size`", size, 1, _LARGEST)
    check_bounds("`num_classes`", num_classes, 2, 256)
    if mask_resize not in RESIZE:
        raise InputError(f'mask resize must be "bilinear" or "nearest", not "{mask_resize}"')
    spec = spec or DataSpec()
    num_classes = spec.num_classes if spec.labels else num_classes
    if num_classes > 2 or any(is_volume(case.image) for case in cases):
        mask_resize = "nearest"
    with_masks = all(case.mask is not None for case in cases)
    form = Form(size, num_classes, mask_resize if with_masks else None, spec)
    lists, folder = (make_folder(Path(cache_dir or default_cache()) / name) for name in (DATASETS, ENTRIES))
    known = digests((path for case in cases for path in case.files), folder / INDEX, progress)
    fingerprint = _fingerprint(cases, form, known, skip_blank)
    paths = [_path(folder, case, form, known) for case in cases]
    if not all(path.exists() for path in paths):
        with _lock(lists / f".{fingerprint}.lock"):
            lacking = [(path, case) for path, case in zip(paths, cases) if not path.exists()]
            _build(folder, lacking, form, progress)
        prepared = Prepared(cases, paths, form, fingerprint, skip_blank)
        for line in warnings(prepared.shares, prepared.corners) if lacking and with_masks else []:
            screen.note(f"warning: {line}")
    else:
        prepared = Prepared(cases, paths, form, fingerprint, skip_blank)
    _remember(lists / f"{fingerprint}.json", prepared, paths)
    return prepared


def _path(folder: Path, case: Case, form: Form, known: dict[Path, str]) -> Path:
    sources = [known[path] for path in case.channels] + ([known[case.mask]] if form.mask_resize and case.mask else [])
    key = json.dumps([FORMAT_VERSION, *form.key(sources)])
    name = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
    return folder / name[:2] / f"{name[2:]}.safetensors"


def _fingerprint(cases: Sequence[Case], form: Form, known: dict[Path, str], skip_blank: bool) -> str:
    """A digest of all that decides the dataset's content, and of nothing else, such as where files lie."""
    with_masks, spec = form.mask_resize is not None, form.spec
    rows = [[case.id, *map(known.get, case.channels), known[case.mask] if with_masks else None] for case in cases]
    key = [FORMAT_VERSION, form.size, form.mask_resize, rows]
    if with_masks and form.num_classes > 2:
        key.append(form.num_classes)
    if spec != DataSpec() or skip_blank:
        key += [form.key([]), skip_blank]
    return hashlib.blake2b(json.dumps(key).encode(), digest_size=20).hexdigest()


def _build(folder: Path, lacking: Sequence[tuple[Path, Case]], form: Form, progress: bool) -> None:
    """Make the entries that are lacking, in parallel."""
    if not lacking:
        return
    bytes_each = form.spec.channels * (1 if form.spec.scaling == EIGHT_BITS else 2) + bool(form.mask_resize)
    needed = form.size**2 * bytes_each * sum(slices_of(case.image, form.spec.axis) for _, case in lacking)
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise InputError(
            f"{folder}: {needed / 2**30:.1f} GiB are needed for {len(lacking)} cases, and {free / 2**30:.1f} GiB are "
            "free; choose another folder, or a smaller `image_size`"
        )
    if progress and needed > _SPARE:
        screen.note(f"note: preparing {len(lacking)} cases takes {needed / 2**30:.1f} GiB in {folder}")
    with _using(folder):
        for parent in {path.parent for path, _ in lacking}:
            make_folder(parent)
        pool = ThreadPoolExecutor(machine.usable_cores())
        try:
            done = pool.map(lambda one: build(*one, form), lacking)
            for _ in screen.track(done, len(lacking), "preparing", "case", shown=progress):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _using(folder: Path) -> Iterator[None]:
    """Write into the folder of entries, as others may; what killed processes left is removed if nobody else does."""
    path = folder / ".lock"
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for below in folder.iterdir():
                if below.is_dir():
                    clear_leftovers(below)
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _remember(path: Path, prepared: Prepared, paths: Sequence[Path]) -> None:
    """Note what a dataset is made of, for `listing`."""
    if path.exists():
        with contextlib.suppress(OSError):
            os.utime(path)
        return
    first = prepared.cases[0]
    content = {
        "folder": str(first.image.absolute().parent),
        "first": first.id,
        "size": prepared.form.size,
        "slices": len(prepared),
        "entries": [str(entry.relative_to(path.parents[1])) for entry in paths],
    }
    with replacing(path) as beside:
        beside.write_text(json.dumps(content), encoding="utf-8")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold `path` alone. The system frees it when its holder dies; the file goes with its last holder."""
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        while os.fstat(handle).st_nlink == 0:  # its holder removed it while this process waited
            os.close(handle)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)
