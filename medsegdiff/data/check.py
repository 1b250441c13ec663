"""Checks a dataset: opens every file and reports what is wrong or unlikely."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional, TypeVar

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import track
from medsegdiff.data.cases import Case, list_images
from medsegdiff.data.fingerprint import Fingerprint, measure
from medsegdiff.data.layouts import LAYOUTS, check_apart, choose, find_validation
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.labels import classes_of, to_classes, without_label
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.volumes import Geometry, is_volume, read_label_volume, read_volume

KINDS = {
    "unreadable": "cannot be read",
    "unmatched": "an image without its mask, or a mask without its image",
    "size": "mask and image, or the channels of an image, differ in size, or images in their number of channels",
    "geometry": "image and mask, or channels, lie at different places in the patient",
    "values": "an image with one value only, or with values that are not finite",
    "labels": "a mask with values that are not labels",
    "empty": "a mask without foreground",
    "full": "a mask without background",
    "inverted": "a mask that is more than half foreground, corners included",
    "soft": "a mask with grey pixels: antialiased, resized, or a JPEG",
    "duplicate": "the same image twice",
    "leakage": "an image or a patient for training and for testing",
}
"""What a finding may be about."""
PURPOSES = {"train": "training", "validation": "validation", "test": "testing"}
"""Of each split."""
_INVERTED = 0.5  # share of foreground from which on a mask with foreground in all corners is unlikely
_JPEG = (".jpg", ".jpeg")
T = TypeVar("T")


class Finding(NamedTuple):
    """Something that is wrong, or unlikely."""

    kind: str
    file: Path
    what: str


@dataclasses.dataclass
class Checked:
    """A dataset that was checked."""

    layout: str
    cases: dict[str, list[Case]]
    """By split, those of `PURPOSES`."""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    spec: Optional[DataSpec] = None
    """How its files are read, where that could be found out."""
    fingerprint: Optional[Fingerprint] = None
    """Of the files that can be read."""

    def add(self, kind: str, file: Path, what: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, file, what))

    def attempt(self, kind: str, file: Path, read: Callable[[], T]) -> Optional[T]:
        """What `read` returns; where it refuses, a finding and None."""
        try:
            return read()
        except InputError as error:
            self.add(kind, file, str(error).removeprefix(f"{file}: "))
            return None


class _Image(NamedTuple):
    shape: tuple[int, ...]
    channels: int
    """Of a volume; 0 of a picture, whose colours are read as they are asked for."""
    geometry: Optional[Geometry]
    digest: bytes


def check(
    root: Path, name: str = "auto", labels: Optional[dict[int, int]] = None, num_classes: int = 2, progress: bool = True
) -> Checked:
    """Check every file of a dataset.

    Args:
        root: the dataset's folder
        name: of its layout, see `layouts.choose`
        labels: the class of each value of the masks; None: what the dataset says
        num_classes: of pictures without labels: classes, background included, above 2 the masks' values
        progress: whether to show a bar

    Raises:
        InputError: there is no such folder, or its layout is not known.
    """
    name = choose(root, name)
    found = Checked(name, {})
    for split in PURPOSES:
        with contextlib.redirect_stderr(io.StringIO()):  # says that one split stands for both, which is undone here
            cases = found.attempt("unmatched", root, lambda split=split: _cases(root, name, split)) or []
        known = {case.image for earlier in found.cases.values() for case in earlier}
        found.cases[split] = [case for case in cases if case.image not in known]
    found.attempt("unmatched", root, lambda: check_apart(found.cases["train"], found.cases["validation"]))
    everyone = [case for cases in found.cases.values() for case in cases]
    _unmatched(found, everyone)
    labels = labels or {}
    binary = not labels and num_classes == 2 and name != "nnunet"  # which says what its values are
    images: dict[Path, _Image] = {}
    values: dict[Path, list[int]] = {}
    good = []
    for case in track(everyone, len(everyone), "checking", "case", shown=progress):
        image = _image(found, case)
        mask = case.mask and _mask(found, case, case.mask, image, labels, binary and not is_volume(case.image))
        if image:
            images[case.image] = image
        if case.mask and mask is not None:
            values[case.mask] = mask
        if image and (mask is not None or not case.mask):
            good.append(case)
    _twice(found, images)
    odd = _odd(found, images)
    good = [case for case in good if case.image not in odd]
    if good:
        fingerprint = found.fingerprint = measure(good, progress)
        measured = fingerprint.with_labels() if labels else fingerprint
        spec = found.attempt("unreadable", root, lambda: LAYOUTS[name].spec(root, lambda: measured))
        if spec:
            found.spec = dataclasses.replace(spec, labels=labels) if labels else spec
            _unknown(found, found.spec.labels, values, num_classes)
            found.attempt("labels", root, lambda: classes_of(found.spec.labels, num_classes))
    found.findings.sort(key=lambda finding: (list(KINDS).index(finding.kind), finding.file))
    return found


def _cases(root: Path, name: str, split: str) -> list[Case]:
    return find_validation(root, name, False) if split == "validation" else LAYOUTS[name].find(root, split, False)


def _unmatched(found: Checked, cases: Sequence[Case]) -> None:
    for case in cases:
        if case.mask is None:
            found.add("unmatched", case.image, "has no mask")
    used = {path for case in cases for path in case.files}
    for folder in sorted({case.mask.parent for case in cases if case.mask}):
        for path in list_images(folder):
            if path not in used:
                found.add("unmatched", path, "belongs to no image")


def _image(found: Checked, case: Case) -> Optional[_Image]:
    """Check a case's images; None where one cannot be read."""
    read = [found.attempt("unreadable", path, lambda path=path: _read(path)) for path in case.channels]
    layers = [layer for layer in read if layer is not None]
    if len(layers) < len(read):
        return None
    hasher = hashlib.blake2b(digest_size=16)
    shape, first = layers[0][0].shape, layers[0][1]
    for path, (values, geometry) in zip(case.channels, layers):
        if first is None or geometry is None:
            if values.shape[:2] != shape[:2]:
                found.add("size", path, f"is of another size than {case.image.name}")
        elif differs := first.differs(geometry):
            found.add("geometry", path, f"has another grid than {case.image.name}: {differs}")
        wrong = values.size - np.count_nonzero(np.isfinite(values))
        if wrong:
            found.add("values", path, f"{wrong} of its {values.size} values are not finite")
        elif values.min() == values.max():
            found.add("values", path, f"holds only the value {values.min()}")
        hasher.update(repr((values.shape, values.dtype.str)).encode())
        hasher.update(np.ascontiguousarray(values).tobytes())
    channels = sum(values[0, 0, 0].size for values, _ in layers) if first else 0
    return _Image(shape, channels, first, hasher.digest())


def _read(path: Path) -> tuple[np.ndarray, Optional[Geometry]]:
    return read_volume(path) if is_volume(path) else (read_image(path), None)


def _odd(found: Checked, images: Mapping[Path, _Image]) -> set[Path]:
    """Images whose number of channels differs from most."""
    usual = Counter(image.channels for image in images.values()).most_common(1)
    odd = {path: image.channels for path, image in images.items() if image.channels != usual[0][0]}
    for path, channels in odd.items():
        found.add("size", path, f"has {channels} channels, most have {usual[0][0]}")
    return set(odd)


def _mask(
    found: Checked, case: Case, path: Path, image: Optional[_Image], labels: Mapping[int, int], binary: bool
) -> Optional[list[int]]:
    """Check a mask against its image; its values, of a `binary` picture none; None if it cannot be read."""
    geometry = None
    if is_volume(case.image):
        read = found.attempt("unreadable", path, lambda: read_label_volume(path, case.image))
        values, geometry = read or (None, None)
    else:
        values = found.attempt("unreadable", path, lambda: read_mask(path) if binary else read_labels(path))
    if values is None:
        return None
    if image and image.geometry and geometry:
        if differs := image.geometry.differs(geometry):
            found.add("size" if image.geometry.shape != geometry.shape else "geometry", path, differs)
    elif image and values.shape != image.shape[: values.ndim]:
        by = ("{1} x {0}".format(*shape) for shape in (values.shape, image.shape))
        found.add("size", path, "is {} pixels, its image {}".format(*by))
    soft = np.mean((values > 0) & (values < 1)) if binary else 0
    if soft or (binary and path.suffix.lower() in _JPEG):
        found.add("soft", path, f"{soft:.1%} of its pixels are grey" if soft else "a JPEG, which blurs edges")
    foreground = to_classes(values, labels) > 0 if labels else values > 0.5 if binary else values != 0
    share, corners = foreground.mean(), foreground[np.ix_(*[[0, -1]] * foreground.ndim)]
    if share in (0, 1):
        found.add("full" if share else "empty", path, f"has {'no background' if share else 'no foreground'}")
    elif corners.all() and share > _INVERTED:
        found.add("inverted", path, f"{share:.1%} of it, and all its corners, are foreground: is it inverted?")
    return [] if binary else np.unique(values).tolist()


def _unknown(found: Checked, labels: Mapping[int, int], values: Mapping[Path, list[int]], num_classes: int) -> None:
    for path, own in values.items():
        unknown = without_label(np.array(own), labels) if labels else [one for one in own if one >= num_classes]
        if unknown:
            known = ", ".join(map(str, labels)) if labels else f"1 to {num_classes - 1}"
            found.add("labels", path, f"holds the values {', '.join(map(str, unknown[:5]))}; known are {known}")


def _twice(found: Checked, images: Mapping[Path, _Image]) -> None:
    """Images of the same pixels, and patients that are in several splits."""
    seen: dict[bytes, tuple[str, Path]] = {}
    homes: dict[str, str] = {}
    for split, cases in found.cases.items():
        for case in cases:
            image = images.get(case.image)
            first, path = seen.setdefault(image.digest, (split, case.image)) if image else (split, case.image)
            if path != case.image:
                kind, other = ("duplicate", "") if first == split else ("leakage", f", which is for {PURPOSES[first]}")
                found.add(kind, case.image, f"the same image as {path}{other}")
        for patient, case in {case.patient: case for case in cases if case.patient}.items():
            home = homes.setdefault(patient, split)
            if home != split:
                found.add("leakage", case.image, f"patient {patient} is in the {PURPOSES[home]} set, too")
