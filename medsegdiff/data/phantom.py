"""Generated dermoscopy-like images with exact masks, in the layout of the ISIC 2016 challenge."""

from __future__ import annotations

import csv
import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image

from medsegdiff.base.bounds import SEEDS, check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, replacing
from medsegdiff.base.randomness import generator
from medsegdiff.base.reading import followed, read_json
from medsegdiff.data.drawing import draw
from medsegdiff.data.layouts.isic import CSV_NAMES, SPLIT_FOLDERS

_MARKER = "phantom.json"
_VERSION = 1  # raise it whenever the same seed draws another picture
_FIRST_INDEX = {"train": 9_000_000, "test": 9_500_000}
_CLASS_COLOURS = np.array([(0, 0, 0), (230, 159, 0), (86, 180, 233)], np.uint8)  # of the masks, told apart by all eyes


def write_isic(out: Path, train: int, test: int, size: int = 192, seed: int = 0, num_classes: int = 2) -> None:
    """Write `train` and `test` generated cases as `out/Train` and `out/Test`, each with its CSV.

    The image of an index depends only on the index, `seed`, `size` (side in pixels) and `num_classes`, so a
    larger set starts with the smaller one. Masks of 3 classes (see `draw`) are palette images, whose pixels
    are the class indices. `out` appears whole or not at all. Where this very call wrote it before, what has
    gone since is written again; all that is there stays as it is.

    Raises:
        InputError: a seed or a number of classes that makes no sense, or a non-empty `out` that is not the output of
            this very call.
    """
    if num_classes not in (2, 3):
        raise InputError(f"`num_classes` {num_classes}: generated images have 2 classes, or 3 with the lesion's core")
    check_bounds("`seed`", seed, *SEEDS)
    out = followed(Path(out))
    parameters = {"train": train, "test": test, "size": size, "seed": seed, "version": _VERSION}
    if num_classes > 2:
        parameters["num_classes"] = num_classes
    if _is_new(out, parameters):
        make_folder(out.parent)
        with replacing(out) as beside:
            beside.mkdir()
            _write(beside, nullcontext, parameters)
            (beside / _MARKER).write_text(json.dumps(parameters), encoding="utf-8")
    else:
        _write(out, replacing, parameters)


def _write(out: Path, new: Callable[[Path], AbstractContextManager[Path]], parameters: dict[str, int]) -> None:
    """Write those files that are not there, each to what `new` gives for it."""
    size, seed, num_classes = parameters["size"], parameters["seed"], parameters.get("num_classes", 2)
    for split in SPLIT_FOLDERS:
        folder, files = out / SPLIT_FOLDERS[split], _file_names(split, parameters[split])
        for parent in dict.fromkeys((folder / name).parent for pair in files for name in pair):
            if not followed(parent).is_relative_to(followed(out)):
                raise InputError(f"{parent}: leads out of {out}; give another `out_dir`")
            make_folder(parent)
        for row, names in enumerate(files):
            absent = [name for name in names if not os.path.lexists(folder / name)]
            if not absent:
                continue
            image, mask = draw(generator(seed, "phantom", _FIRST_INDEX[split] + row), size, num_classes)
            picture = Image.fromarray(mask)
            if num_classes > 2:
                picture.putpalette(_CLASS_COLOURS.tobytes())
            for name in absent:
                with new(folder / name) as path:
                    if name == names[0]:
                        Image.fromarray(image).save(path, "JPEG", quality=92)
                    else:
                        picture.save(path, "PNG")
        table = folder / CSV_NAMES[split]
        if not os.path.lexists(table):
            with new(table) as path, path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("", "img", "seg"), *((i, *pair) for i, pair in enumerate(files))])


def is_generated(path: Path) -> bool:
    """Whether a file of a dataset is one that `write_isic` wrote."""
    return any((parent / _MARKER).is_file() for parent in list(followed(path).parents)[:3])


def _file_names(split: str, count: int) -> list[tuple[str, str]]:
    """(image, mask) of each case, relative to the split's folder."""
    masks = CSV_NAMES[split][: -len(".csv")]
    images = masks.replace("GroundTruth", "Data")
    ids = [f"ISIC_{_FIRST_INDEX[split] + row}" for row in range(count)]
    return [(f"{images}/{name}.jpg", f"{masks}/{name}_Segmentation.png") for name in ids]


def _is_new(out: Path, parameters: dict[str, int]) -> bool:
    """Whether there is nothing in `out`; else it must be the same call's own."""
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"{out}: a file, where a folder was expected; choose another folder")
    if not out.exists() or not any(out.iterdir()):
        return True
    try:
        written = read_json(out / _MARKER)
    except InputError:
        written = None
    if written != parameters:
        raise InputError(f"{out}: holds other data; choose an empty or a new folder")
    return False
