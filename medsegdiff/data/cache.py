"""Datasets decoded and resized once, an entry for each case, keyed by the content of its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Optional, Union

from medsegdiff.base import machine, screen, system
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, held, make_folder, opened, remove, replacing
from medsegdiff.data.cases import Case
from medsegdiff.data.digests import digests
from medsegdiff.data.entries import Form, build
from medsegdiff.data.foreground import warnings
from medsegdiff.data.prepared import Prepared
from medsegdiff.data.scaling import EIGHT_BITS
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.volumes import is_volume, slices_of

FORMAT_VERSION = 1  # raise it whenever the arrays made from the same files change
DATASETS, ENTRIES = "datasets", "cases"
"""Folders of the cache: of lists of cases, and of what is kept of each."""
INDEX = "digests.json"
"""In the latter, see `digests`."""
LOCK = ".lock"
"""There, too: who writes entries holds it, together with others who do."""
_SPARE = 1 << 28  # bytes of the disk to leave free
_REMEDY = "give another `cache_dir`, or set MEDSEGDIFF_CACHE"


def default_cache() -> Path:
    """`$MEDSEGDIFF_CACHE`, else `medsegdiff` in the user's cache folder."""
    if chosen := os.environ.get("MEDSEGDIFF_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or machine.home() / ".cache") / "medsegdiff"


def prepare(
    cases: Sequence[Case],
    size: int,
    cache_dir: Union[str, Path, None] = None,
    mask_resize: str = "bilinear",
    progress: bool = True,
    num_classes: int = 2,
    spec: Optional[DataSpec] = None,
    skip_blank: bool = False,
) -> Prepared:
    """Open the dataset's slices; cases that the cache does not have in this form are prepared first.

    See `Form` for how images and masks are resized; masks of volumes and of more than two classes are always resized by
    the nearest pixel. Masks are kept only if every case has one. Unlikely masks are reported when they
    are prepared (see `foreground.warnings`).

    There is a file for each case in `cases/` below `cache_dir` (see `default_cache`), under a digest of the bytes of
    all its files and of the form. So only new cases are prepared, and what a killed process had prepared
    stays. Several processes may ask at once: one works, the others wait and use its result. A
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
        InputError: no cases, an unreadable file, a mask of another size than its image or with a class too many, or a
            cache folder that cannot be written or is too small.
    """
    if not cases:
        raise InputError("no images to prepare; check the data folder")
    spec = spec or DataSpec()
    num_classes = spec.num_classes if spec.labels else num_classes
    if num_classes > 2 or any(is_volume(case.image) for case in cases):
        mask_resize = "nearest"
    with_masks = all(case.mask is not None for case in cases)
    form = Form(size, num_classes, mask_resize if with_masks else None, spec)
    cache = Path(cache_dir or default_cache())
    lists, folder = (make_folder(cache / name, _REMEDY) for name in (DATASETS, ENTRIES))
    sources = (path for case in cases for path in (case.files if with_masks else case.channels))
    known = digests(sources, folder / INDEX, progress)
    fingerprint = _fingerprint(cases, form, known, skip_blank)
    paths = [_path(folder, case, form, known) for case in cases]
    lacking: list[tuple[Path, Case]] = []
    if not all(path.exists() for path in paths):
        with held(lists / f".{fingerprint}.lock", _wait):
            lacking = [(path, case) for path, case in zip(paths, cases) if not path.exists()]
            _build(folder, lacking, form, progress)
    prepared = Prepared(cases, paths, form, fingerprint, skip_blank, partial(_make_anew, folder, form))
    for line in warnings(prepared.shares, prepared.corners) if lacking and with_masks else []:
        screen.note(f"warning: {line}")
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


def _make_anew(folder: Path, form: Form, path: Path, case: Case) -> None:
    """Make an entry that was damaged or removed, from files that are still the same."""
    _check_unchanged(folder, [(path, case)], form)
    _build(folder, [(path, case)], form, False)


def _check_unchanged(folder: Path, entries: Sequence[tuple[Path, Case]], form: Form) -> None:
    """Remove the entries of cases whose files are others than those that the entries are named after.

    Raises:
        InputError: there is one.
    """
    sources = (path for _, case in entries for path in (case.files if form.mask_resize else case.channels))
    known = digests(sources, folder / INDEX, False)
    changed = [(path, case) for path, case in entries if _path(folder, case, form, known) != path]
    for path, _ in changed:
        remove(path)
    for _, case in changed[:1]:
        raise InputError(f"{case.image}: it, or its mask, was changed meanwhile; run the command again")


def _build(folder: Path, lacking: Sequence[tuple[Path, Case]], form: Form, progress: bool) -> None:
    """Make the entries that are lacking, in parallel."""
    if not lacking:
        return
    bytes_each = form.spec.channels * (1 if form.spec.scaling == EIGHT_BITS else 2) + bool(form.mask_resize)
    needed = form.size**2 * bytes_each * sum(slices_of(case.image, form.spec.axis) for _, case in lacking)
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise InputError(
            f"{folder}: {len(lacking)} cases need {(needed + _SPARE) / 2**20:,.0f} MiB there, and {free / 2**20:,.0f} "
            f"MiB are free; {_REMEDY}, or choose a smaller `image_size`"
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
    _check_unchanged(folder, lacking, form)


@contextlib.contextmanager
def _using(folder: Path) -> Iterator[None]:
    """Write into the folder of entries, as others may; what killed processes left is removed if nobody else does."""
    with opened(folder / LOCK) as handle:
        with contextlib.suppress(OSError):
            system.lock(handle, wait=False)
            for below in folder.iterdir():
                if below.is_dir():
                    clear_leftovers(below)
        _wait(handle, shared=True)
        yield


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


def _wait(handle: int, shared: bool = False) -> None:
    with contextlib.suppress(OSError):  # of file systems without locks: then several may work, each for itself
        system.lock(handle, shared)
