"""The images of a training: found, prepared, and some held out."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple, Optional

from medsegdiff.base import ranks, screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import followed, is_folder
from medsegdiff.config.data import DataConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.fingerprint import Fingerprint, measure
from medsegdiff.data.layouts import LAYOUTS, check_apart, choose, find_validation, parse_labels
from medsegdiff.data.loader import Dataset
from medsegdiff.data.splits import Split, count_held_out, divide, hold_out, read_split, take
from medsegdiff.io.labels import format_labels
from medsegdiff.io.volumes import slices_of
from medsegdiff.training.run_folder import own


class Images(NamedTuple):
    """What a training is given."""

    config: RunConfig
    """With all that was found out of the dataset."""
    cases: list[Case]
    """To train on and to validate with."""
    split: Split
    fingerprint: Optional[Fingerprint]
    """What the files are like, where that was measured."""

    @property
    def about(self) -> dict[str, Any]:
        """What is saved with the run and its checkpoints, ready for JSON."""
        found = {"split": self.split._asdict()}
        return {**found, "fingerprint": self.fingerprint.plain()} if self.fingerprint else found

    @property
    def count(self) -> int:
        """How many slices are trained on, about: patients may have different numbers of them."""
        validation, cases = self.config.validation, take(self.cases, self.split.train)
        slices = sum(slices_of(case.image, self.config.data.axis) for case in cases)
        if not validation.val_interval or self.split.validation:
            return slices
        groups = len({case.group for case in cases})
        return slices * (groups - count_held_out(groups, validation.val_fraction)) // groups


def find_images(config: RunConfig) -> Images:
    """The training images of `config.data.data_dir`, with their masks, and how they are read.

    Raises:
        InputError: no folder is named, it is no dataset, or the network is for other images.
    """
    data = config.data
    if not data.data_dir:
        raise InputError("`data_dir`: missing; give the dataset's folder")
    if config.network.class_cond:
        raise InputError("`class_cond` True: the datasets that are read have no class labels; use False")
    root = Path(data.data_dir)
    name = choose(root, data.data_name)
    layout = LAYOUTS[name]
    cases = layout.find(root, "train")
    validation = find_validation(root, name)
    check_apart(cases, validation)
    measuring = functools.cache(lambda: measure(cases, ranks.rank() == 0))
    given = {}
    if data.labels:
        given["labels"] = parse_labels(data.labels, root, name)
    if data.scaling:
        given["scaling"] = data.scaling
    spec = layout.spec(root, (lambda: measuring().with_labels()) if data.labels else measuring)
    spec = dataclasses.replace(spec, axis=data.axis, **given)
    measured = measuring() if measuring.cache_info().currsize else None
    config = config.reading(spec, name)
    split = _split(config, cases, validation)
    found = take([*cases, *validation], [*split.train, *split.validation])
    if measured and ranks.rank() == 0:
        labels = format_labels(spec.labels) or "none"
        for line in (*measured.lines(), f"so they are read with scaling {spec.scaling}, labels {labels}"):
            screen.note(f"fingerprint: {line}")
    if split.test and ranks.rank() == 0:
        screen.note(f"note: {len(split.test)} of {len(cases)} cases are kept for testing")
    return Images(config, found, split, measured)


def _split(config: RunConfig, cases: list[Case], validation: list[Case]) -> Split:
    data = config.data
    layout, held_out = LAYOUTS[data.data_name], [case.id for case in validation]
    if data.split and data.folds:
        raise InputError(f"`folds` {data.folds}: `split` says which cases are tested on; leave out one of them")
    own_test = not data.folds and (data.data_name == "isic" or layout.find(Path(data.data_dir), "test", False))
    decided = "`folds`" if data.folds else "`split`" if data.split else "the dataset" if own_test else ""
    if decided and data.test_fraction != DataConfig.test_fraction:
        raise InputError(f"`test_fraction` {data.test_fraction}: {decided} says what is tested on; leave it out")
    if data.folds:
        return divide([*cases, *validation], data.test_fraction, data.folds, data.fold)
    if data.split:
        split = read_split(Path(data.split), [*cases, *validation], data.fold)
        return split if split.test or own_test else split._replace(test=split.validation)  # as nnU-Net scores folds
    if own_test:
        return Split([case.id for case in cases], held_out, [])
    if len({case.group for case in cases}) == 1:
        if ranks.rank() == 0:
            screen.note("note: there is only one image, or patient, so none is kept for testing")
        return Split([case.id for case in cases], held_out, [])
    return divide(cases, data.test_fraction)._replace(validation=held_out)


def open_images(images: Images) -> tuple[Dataset, Optional[Dataset]]:
    """The images at the network's size: those to train on and, where the configuration validates, those held out.

    Raises:
        InputError: a file cannot be read, or too few images are left to train on, or `config.training.out_dir` holds
            what is not training's own, or lies among the images.
    """
    config = images.config
    _keep_apart(config, images.cases)
    if ranks.rank() == 0:
        own(Path(config.training.out_dir))  # complains of what would be lost, before anything takes long
    validation = config.validation
    dataset = prepare(images.cases, cache_dir=config.data.cache_dir, **config.preparation)
    if not validation.val_interval and not images.split.validation:
        return dataset, None
    held_out = {case.group for case in take(images.cases, images.split.validation)} or None
    return hold_out(dataset, validation.val_fraction, validation.val_images, held_out)


def _keep_apart(config: RunConfig, cases: list[Case]) -> None:
    """Refuse to write among the images, where the pictures of a run would be taken for more of them."""
    out = followed(Path(config.training.out_dir))
    below = out.parents if config.data.data_name in ("folder", "nnunet") else ()  # which look for pictures there, too
    for folder in {path if is_folder(path) else path.parent for case in cases for path in case.files}:
        if followed(folder) in (out, *below):
            raise InputError(f"`out_dir` {out}: lies in {folder}, a folder of images or masks; give another")
