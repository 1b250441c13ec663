"""BraTS: a folder for each case with its four sequences and, to train, its segmentation, as of 2018 to 2021 or 2023."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import is_folder
from medsegdiff.data.cases import Case, distinct
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.layouts.pairs import SPLITS
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.folders import folders_below, glance, list_folder
from medsegdiff.io.volumes import is_volume, stem

# T1, T1 with contrast, T2, FLAIR, by how their files' names end.
_SEQUENCES = (("t1", "t1n"), ("t1ce", "t1c", "t1gd"), ("t2", "t2w"), ("flair", "t2f"))
_MASK = ("seg", "segm")  # the latter of one case of 2020, W39_1998.09.19_Segm.nii
_LABELS = {1: 1, 2: 2, 4: 3}  # necrosis, oedema, enhancing; 3 for the last since 2023
_REGIONS = {"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (3, 4)}  # that the challenge scores


def matches(root: Path) -> bool:
    """Whether a folder below has a case's sequences, or the folder itself has them all."""
    return _is_case(root) or any(_files(folder) for folder in glance(root) if folder != root)


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """The cases of all folders, at whatever depth, as "train"; or of `test/` as "test", if they have masks.

    The folder of one case is a dataset of that case.

    Raises:
        InputError: there is none, a case lacks a sequence, or with `need_masks` its segmentation.
    """
    if split == "test":
        below = [folder for folder in _subfolders(root) if folder.name.lower() in SPLITS["test"]]
        found = [case for folder in below for case in find(folder, "train", False)]
        return found if all(case.mask for case in found) else []
    located = []
    for folder in folders_below(root):
        files = _files(folder)
        if not files or (folder == root and not _is_case(root)):
            continue
        several = next((paths for paths in files.values() if len(paths) > 1), None)
        if several:
            raise InputError(
                f"{several[1]}: of the same sequence as {several[0].name}; keep one, each case in a folder"
            )
        channels = [next((files[end][0] for end in ends if end in files), None) for ends in _SEQUENCES]
        name = folder.absolute().name  # of the working directory, too
        lacking = [ends[0] for ends, file in zip(_SEQUENCES, channels) if file is None]
        mask = next((files[end][0] for end in _MASK if end in files), None)
        if lacking or (need_masks and mask is None):
            raise InputError(f"{folder}: no file {name}_{(*lacking, 'seg')[0]}.nii.gz; restore it")
        # Since 2021 a name such as BraTS-GLI-00001-000 ends in the examination's number.
        patient = name.rpartition("-")[0] if name.count("-") == 3 else ""
        located.append((str(folder), Case(name, tuple(filter(None, channels)), mask, patient)))
    if not located:
        raise InputError(f"{root}: no folder with files such as ID_t1.nii.gz and ID_seg.nii.gz; check the path")
    return distinct(located)


def spec(root: Path, measure: Measure) -> DataSpec:
    """Four channels and all labels as classes."""
    found = measure()
    return found.spec(labels={1: 1, 2: 2, 3: 3} if 3 in found.values else dict(_LABELS))


def regions(root: Path) -> dict[str, dict[int, int]]:
    """The regions that the challenge scores."""
    return {name: {value: int(value in inside) for value in range(1, 5)} for name, inside in _REGIONS.items()}


def _is_case(folder: Path) -> bool:
    """Whether a folder has each sequence, once."""
    files = _files(folder) if is_folder(folder) else {}
    return all(sum(len(files.get(end, ())) for end in ends) == 1 for ends in _SEQUENCES)


def _subfolders(root: Path) -> list[Path]:
    return [path for path in list_folder(root) if is_folder(path)] if is_folder(root) else []


def _files(folder: Path) -> dict[str, list[Path]]:
    """A case's volumes by how their names end, one each where the folder is a case's own."""
    known = {end for ends in (*_SEQUENCES, _MASK) for end in ends}
    found: dict[str, list[Path]] = {}
    for path in list_folder(folder):
        end = stem(path).replace("-", "_").rpartition("_")[2].lower()
        if end in known and is_volume(path):
            found.setdefault(end, []).append(path)
    return found if len(found) > 1 else {}
