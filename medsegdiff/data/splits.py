"""Which cases train, validate and test: by patient, never by slice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.base.reading import composed, read_json
from medsegdiff.base.screen import counted
from medsegdiff.data.cases import Case
from medsegdiff.data.loader import Dataset

_KEYS = {"train": "train", "training": "train", "val": "validation", "validation": "validation", "test": "test"}


class Split(NamedTuple):
    """The names of the cases of each part."""

    train: list[str]
    validation: list[str]
    """Empty where it is to be held out of `train`."""
    test: list[str]


def divide(cases: Sequence[Case], fraction: float, folds: int = 0, fold: int = 0) -> Split:
    """Split cases by patient, by the patients' names alone.

    Args:
        cases: what to split
        fraction: share of the patients in the test set
        folds: number of parts, one of them the test set; 0: use `fraction` instead
        fold: which one

    Raises:
        InputError: nothing would be left on one side.
    """
    groups = sorted({case.group for case in cases})
    ranked = sorted(groups, key=lambda group: generator("test", group).random())
    chosen = ranked[fold::folds] if folds else ranked[: max(1, round(fraction * len(groups)))]
    if not chosen or len(chosen) == len(groups):
        what = f"`fold` {fold} of {folds}" if folds else f"`test_fraction` {fraction}"
        raise InputError(f"{what}: of {len(groups)} patients {len(chosen)} would be the test set; give more, or others")
    test = [case.id for case in cases if case.group in set(chosen)]
    return Split([case.id for case in cases if case.group not in set(chosen)], [], test)


def read_split(path: Path, cases: Sequence[Case], fold: int = 0) -> Split:
    """Split cases as a JSON file says: lists of names of cases or of patients by "train", "validation" and "test".

    The file may also hold a list of such splits (as nnU-Net's `splits_final.json`); `fold` chooses one. Cases that are
    not named are left out.

    Raises:
        InputError: it cannot be read, has no such fold, names what is not there or a patient on two sides, or lacks
            training.
    """
    try:
        content = read_json(path)
        several = content if isinstance(content, list) else [content]
        if fold >= len(several):
            raise InputError(f"{path}: holds {counted(len(several), 'split')}, counted from 0, and no `fold` {fold}")
        content = several[fold]
        named: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
        for key, names in content.items():
            named[_KEYS[key]].update(composed(str(name)) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: no split ({error!r}); write {{"train": [names], "validation": [names], "test": [names]}}'
        ) from None
    known = {name for case in cases for name in (case.id, case.group)}
    unknown = sorted(set().union(*named.values()) - known)
    if unknown:
        raise InputError(f"{path}: names {unknown[0]}, which is not a case or patient; correct it")
    found = {key: [case for case in cases if {case.id, case.group} & names] for key, names in named.items()}
    seen: dict[str, str] = {}
    for key, part in found.items():
        for case in part:
            if seen.setdefault(case.group, key) != key:
                raise InputError(f"{path}: {case.group} is in {seen[case.group]} and in {key}; name it once")
    if not found["train"]:
        raise InputError(f"{path}: names no case to train on")
    return Split(*([case.id for case in found[key]] for key in ("train", "validation", "test")))


def take(cases: Sequence[Case], names: Collection[str]) -> list[Case]:
    """Those of the cases that are named."""
    wanted = set(names)
    return [case for case in cases if case.id in wanted]


def groups_of(dataset: Dataset) -> list[str]:
    """The patient of each image: its own name where the dataset knows no patients."""
    return getattr(dataset, "groups", dataset.ids)


class Subset:
    """Some images of a dataset, under a fingerprint of their own."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.ids = [dataset.ids[index] for index in self.indices]
        groups = groups_of(dataset)
        self.groups = [groups[index] for index in self.indices]
        text = json.dumps([dataset.fingerprint, self.ids])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> np.ndarray:
        """One image, float32 (C, S, S) in [0, 1]."""
        return self.dataset.image(self.indices[index])

    def mask(self, index: int) -> np.ndarray:
        """One mask, float32 (M, S, S) of 0 and 1."""
        return self.dataset.mask(self.indices[index])


def count_held_out(groups: int, fraction: float) -> int:
    """How many of so many images, or patients, `hold_out` takes: at least one.

    Raises:
        InputError: nothing would be left to train on.
    """
    count = max(1, round(fraction * groups))
    if count >= groups:
        remedy = "a smaller fraction, or more images" if groups > 1 else "more images, or `val_interval` 0"
        raise InputError(
            f"`val_fraction` {fraction}: of {groups} images, or patients, {count} would be held out, which leaves none "
            f"to train on; give {remedy}"
        )
    return count


def hold_out(
    dataset: Dataset, fraction: float, most: int = 0, names: Optional[Collection[str]] = None
) -> tuple[Subset, Subset]:
    """Split `dataset` into (training, validation) images, by patient.

    Which patients are held out depends on their names and their number alone: not on a seed, the order of the files
    or where they lie.

    Args:
        dataset: what to split; it stays as it is
        fraction: share of the patients that is held out, between 0 and 1
        most: validate with at most this many of the held-out images; 0: all. The others are left out of both parts, so
            that this number does not change what is trained on
        names: the patients to hold out, instead

    Raises:
        InputError: nothing would be left to train on.
    """
    groups = groups_of(dataset)
    chosen = set(names or ())
    if names is None:
        ranked = sorted(set(groups), key=lambda group: generator("validation", group).random())
        chosen = set(ranked[: count_held_out(len(ranked), fraction)])
    kept = [index for index, group in enumerate(groups) if group not in chosen]
    held_out = [index for index, group in enumerate(groups) if group in chosen]
    held_out.sort(key=lambda index: generator("validation", dataset.ids[index]).random())
    return Subset(dataset, kept), Subset(dataset, held_out[: most or None])
