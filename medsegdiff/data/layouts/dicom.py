"""DICOM: series in a folder each, with DICOM SEG as masks; or single pictures, with pictures of the same names."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import composed, is_folder
from medsegdiff.data.cases import Case, distinct
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts.pairs import MASKS, SPLITS, image_name
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.dicom.series import find_series
from medsegdiff.io.folders import folders_below, glance, list_folder
from medsegdiff.io.volumes import is_series, stem


def matches(root: Path) -> bool:
    """Whether a folder below holds DICOM files."""
    return any(map(is_series, glance(root)))


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The series of all folders as "train", or of `test/` as "test"; a case's patient is its PatientID.

    A series' mask is the DICOM SEG that refers to it, wherever that lies, or else a file in a folder `masks`, or of a
    name like it, that has the name of the series' folder. Where each file of a series has a mask of its own name there,
    as single pictures have, each is a case.

    Raises:
        InputError: there is none, a file cannot be read, a folder holds several series of several files, a series has
            two masks, or with `need_masks` none.
    """
    tests = [path for path in list_folder(root) if is_folder(path) and path.name.lower() in SPLITS["test"]]
    folders = [folder for test in tests for folder in folders_below(test)]
    if split == "train":
        folders = [folder for folder in folders_below(root) if folder not in folders]
    seen, masks, named = [], {}, {}
    for folder in folders:
        if folder.name.lower() in MASKS:
            named.update({image_name(path): path for path in list_folder(folder)})
        series, segmentations = find_series(folder) if is_series(folder) else ({}, {})
        for uid, path in segmentations.items():
            if uid in masks:
                raise InputError(f"{path}: a second segmentation of the series of {masks[uid]}; keep one")
            masks[uid] = path
        seen += [(folder, uid, one, len(series)) for uid, one in series.items()]
    found = []
    for folder, uid, one, count in seen:
        files = {composed(stem(path)): path for path in one.files}
        if files.keys() <= named.keys():
            found += [(path, named[name], one.patient) for name, path in files.items()]
            continue
        if count > 1 and len(one.files) > 1:
            raise InputError(f"{folder}: holds {count} series; keep each in a folder of its own")
        path = one.files[0] if count > 1 else folder
        found.append((path, masks.get(uid) or named.get(composed(stem(path))), one.patient))
    located = []
    for path, mask, patient in found:
        if mask is None and need_masks:
            raise InputError(f"{path}: no DICOM SEG refers to this series, nor is there masks/{stem(path)}.nii.gz")
        located.append((str(path), Case(stem(path), (path,), mask, patient)))
    if not located and split == "train":
        raise InputError(f"{root}: no folder with DICOM images; check the path")
    return distinct(located)


def spec(root: Path, measure: Measure) -> DataSpec:
    """What the files are, found out from them."""
    return measure().spec()
