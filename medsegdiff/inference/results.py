"""What a folder of predictions holds already: what of it stays, and what may not be mixed with it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Union

from medsegdiff import __version__
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import exclusive, make_folder
from medsegdiff.base.ownership import Group, Ledger
from medsegdiff.base.reading import path_of, read_json, reading
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cases import Case
from medsegdiff.data.prepared import Prepared
from medsegdiff.inference.files import row_of
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.ensembles import IMAGES, ImageRow, write_ensembles
from medsegdiff.io.predictions import NIFTI, PNG, WRITER, check_id, files_of

RUN = "run.json"


def settings(sampling: SamplingConfig, weights: str) -> dict[str, Any]:
    """What a mask depends on besides its image, ready for JSON; `weights` is a digest of them."""
    found = {"weights": weights, "medsegdiff": __version__, **dataclasses.asdict(sampling)}
    del found["batch_size"]
    return json.loads(json.dumps(found))


class Run(NamedTuple):
    """What `run.json` says of the dataset."""

    kept: tuple[str, ...] = ()
    """The cases that training kept for testing."""
    labels: str = ""
    """As the option of training."""
    num_classes: int = 2


def read_run(folder: Path) -> Run:
    """What `run.json` in a folder of predictions says of the dataset; defaults where it is missing or not of ours."""
    try:
        content = read_json(folder / RUN)
        check_bounds("`num_classes`", content["num_classes"], 2, 256)
        return Run(tuple(map(str, content["kept"])), str(content["labels"]), int(content["num_classes"]))
    except (InputError, KeyError, TypeError, ValueError):
        return Run()


def content(dataset: Prepared, indices: Sequence[int], case: Case, drawn: bool) -> str:
    """A digest of a case's slices at network resolution, their size, and the ground truth where it is `drawn`."""
    hasher = hashlib.blake2b(digest_size=16)
    for index in indices:
        hasher.update(dataset.image(index).tobytes())
    hasher.update(repr(dataset.original_sizes[indices[0]] if indices else ()).encode())
    if drawn and case.mask is not None:
        with contextlib.suppress(InputError), reading(case.mask) as file:
            hasher.update(file.read())
    return hasher.hexdigest()


def save(
    folder: Union[str, Path],
    id: str,
    wanted: dict[str, Any],
    slices: Sequence[ImageResult],
    write: Callable[[Ledger, dict[str, Any]], Path],
) -> Path:
    """Write the files of one image, with the settings `wanted`, and its row of `images.csv`.

    `write` is given the ledger of the folder, which is made if need be, and what to remember of the files. Returns what
    it does, the mask's path.

    Raises:
        InputError: the id cannot name files, a file in the way is not sampling's own, the folder holds masks with
            other settings, or the disk refuses.
    """
    check_id(id)
    folder = path_of(folder, "folder")
    with exclusive(make_folder(folder), patient=True):
        ledger = Ledger(folder, WRITER)
        try:
            check(ledger, wanted, [id])
        except InputError as error:
            raise InputError(error.spelled(lambda field: "folder" if field == "out_dir" else field)) from None
        path = write(ledger, {"image": id, "settings": wanted, "ensemble": row_of(slices)})
        with ledger.together(IMAGES) as stage:
            write_ensembles(stage, known(ledger, wanted))
    return path


def check(ledger: Ledger, wanted: dict[str, Any], ids: Collection[str], overwrite: bool = False) -> None:
    """Refuse to write predictions of the images `ids` beside, or over, files that do not belong to them.

    With `overwrite` earlier predictions with other settings than those `wanted` may be replaced.

    Raises:
        InputError: a file in the way is not sampling's own, or the folder holds masks with other settings.
    """
    others = _others(ledger, wanted)
    ledger.check([IMAGES, RUN, *files_of(ledger.folder, {*ids, *others})])
    if others and not overwrite:
        raise InputError(
            f"{ledger.folder}: holds masks sampled with {_difference(next(iter(others.values())), wanted)}; "
            "give another `out_dir`, or replace them by sampling with `overwrite`"
        )


def clear(ledger: Ledger, wanted: dict[str, Any]) -> None:
    """Remove earlier predictions with other settings than those `wanted`, all of them.

    Raises:
        InputError: one was changed since.
    """
    if others := _others(ledger, wanted):
        ledger.remove([RUN, IMAGES, *files_of(ledger.folder, others)])


def known(ledger: Ledger, wanted: dict[str, Any]) -> dict[str, ImageRow]:
    """The ensembles of all images that the folder has masks of, with these settings."""
    latest = _latest(ledger).items()
    return {id: ImageRow(*group.about["ensemble"]) for id, group in latest if group.about["settings"] == wanted}


def finished(ledger: Ledger, abouts: Mapping[str, dict[str, Any]]) -> set[str]:
    """Those images of which the folder has all files, as they were written, for the same `abouts`, by id."""
    return {
        id
        for id, group in _latest(ledger).items()
        if id in abouts and {**group.about, **abouts[id]} == group.about and all(map(ledger.owns, group.files))
    }


def _latest(ledger: Ledger) -> dict[str, Group]:
    """What was last written of each image whose mask is there."""
    found = {group.about["image"]: group for group in ledger.groups if "image" in group.about}
    folder = ledger.folder
    return {id: group for id, group in found.items() if any((folder / f"{id}{end}").exists() for end in (PNG, NIFTI))}


def _others(ledger: Ledger, wanted: dict[str, Any]) -> dict[str, Group]:
    return {id: group for id, group in _latest(ledger).items() if group.about["settings"] != wanted}


def _difference(group: Group, wanted: dict[str, Any]) -> str:
    theirs = group.about["settings"]
    name = next(name for name in {**wanted, **theirs} if wanted.get(name) != theirs.get(name))
    if name == "weights":
        return "other weights"
    option = "version" if name == "medsegdiff" else f"`{name}`"
    return f"{option} {theirs.get(name)}, not {wanted.get(name)}"
