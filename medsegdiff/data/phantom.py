"""Generated dermoscopy-like images with exact masks, in the layout of the ISIC 2016 challenge."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder, replacing
from medsegdiff.base.randomness import generator
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
    are the class indices. `out` appears whole or not at all.

    Raises:
        InputError: a number that makes no sense, or a non-empty `out` that is not the output of this very
            call.
    """
    if min(train, test) < 1 or size < 32:
        raise InputError(f"need at least 1 train and 1 test image of 32 pixels, not {train}, {test}, {size}")
    if num_classes not in (2, 3):
        raise InputError(f"--num-classes {num_classes}: generated images have 2 classes, or 3 with the lesion's core")
    out = Path(out).resolve()
    parameters = {"train": train, "test": test, "size": size, "seed": seed, "version": _VERSION}
    if num_classes > 2:
        parameters["num_classes"] = num_classes
    plan = {split: _file_names(split, count) for split, count in (("train", train), ("test", test))}
    _check_replaceable(out, parameters, plan)
    make_folder(out.parent)
    with replacing(out) as beside:
        for split, files in plan.items():
            table = beside / SPLIT_FOLDERS[split] / CSV_NAMES[split]
            for name in files[0]:
                (table.parent / name).parent.mkdir(parents=True, exist_ok=True)
            for row, (image_name, mask_name) in enumerate(files):
                image, mask = draw(generator(seed, "phantom", _FIRST_INDEX[split] + row), size, num_classes)
                Image.fromarray(image).save(table.parent / image_name, quality=92)
                picture = Image.fromarray(mask)
                if num_classes > 2:
                    picture.putpalette(_CLASS_COLOURS.tobytes())
                picture.save(table.parent / mask_name)
            with table.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("", "img", "seg"), *((i, *pair) for i, pair in enumerate(files))])
        (beside / _MARKER).write_text(json.dumps(parameters), encoding="utf-8")


def is_generated(path: Path) -> bool:
    """Whether a file of a dataset is one that `write_isic` wrote."""
    return any((parent / _MARKER).is_file() for parent in list(path.resolve().parents)[:3])


def _file_names(split: str, count: int) -> list[tuple[str, str]]:
    """(image, mask) of each case, relative to the split's folder."""
    masks = CSV_NAMES[split][: -len(".csv")]
    images = masks.replace("GroundTruth", "Data")
    ids = [f"ISIC_{_FIRST_INDEX[split] + row}" for row in range(count)]
    return [(f"{images}/{name}.jpg", f"{masks}/{name}_Segmentation.png") for name in ids]


def _check_replaceable(out: Path, parameters: dict[str, int], plan: dict[str, list[tuple[str, str]]]) -> None:
    """Refuse to replace anything but the same call's own output: what is in `out` will be deleted."""
    if out.is_file():
        raise InputError(f"{out}: a file, where a folder was expected; choose another folder")
    present = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    if not present:
        return
    try:
        written = json.loads((out / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        written = None
    if written != parameters:
        raise InputError(f"{out}: holds other data, which would be lost; choose an empty or a new folder")
    own = {f"{SPLIT_FOLDERS[split]}/{name}" for split, files in plan.items() for pair in files for name in pair}
    own |= {f"{SPLIT_FOLDERS[split]}/{CSV_NAMES[split]}" for split in plan} | {_MARKER}
    foreign = sorted(present - own)
    if foreign:
        raise InputError(f"{out / foreign[0]}: not a generated file, and would be lost; move it elsewhere")
