"""ISIC skin lesion datasets: the published project's CSV layout, and the challenges' own folders."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import read_text
from medsegdiff.data.cases import Case, distinct
from medsegdiff.data.fingerprint import Measure
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.folders import list_folder
from medsegdiff.io.pictures import is_picture

CSV_NAMES = {
    "train": "ISBI2016_ISIC_Part1_Training_GroundTruth.csv",
    "test": "ISBI2016_ISIC_Part1_Test_GroundTruth.csv",
}
SPLIT_FOLDERS = {"train": "Train", "test": "Test"}

# (images, masks) as the challenges' archives unpack; of each year the first one present is the split.
_CHALLENGES = {
    "train": {
        2016: [("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth")],
        2017: [("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")],
        2018: [("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth")],
    },
    "test": {
        2016: [("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth")],
        2017: [
            ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
            ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        ],
        2018: [
            ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
            ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        ],
    },
}


def matches(root: Path) -> bool:
    """Whether a split's CSV or challenge folders are in one of the places where they are looked for."""
    return any(_present(folder, split) for split in CSV_NAMES for folder, _ in _places(root, split))


def spec(root: Path, measure: Measure) -> DataSpec:
    """8-bit RGB images, and masks of two classes."""
    return DataSpec()


def find(root: Path, split: str, need_masks: bool = True) -> list[Case]:
    """List the cases of one split, "train" or "test", in the CSV's order or by name.

    `root` is a folder with the published project's CSV or with challenge folders (ISIC 2016, 2017,
    2018), or one that has such a folder as `Train/` or `Test/`, `ISIC/Train/` or `data/ISIC/Train/`.
    A folder that itself holds only the other split is used as this one.
    Without `need_masks` an image whose mask is missing has `mask=None`. Ids are the images' file
    stems, see `distinct`.

    Raises:
        InputError: the folder is missing, empty or has no such dataset; the CSV is malformed or names a
            missing file; an image lacks its mask, or a mask its image; an id occurs twice.
    """
    if not list_folder(root):
        raise InputError(f"{root}: the folder is empty; point to the folder of the ISIC dataset")
    for folder, wanted in _places(root, split):
        cases = _cases_in(folder, wanted, need_masks)
        if cases is not None:
            if wanted != split:
                screen.note(f"note: {folder} is a {wanted} set; it is used as the {split} set")
            return cases
    raise InputError(
        f"{root}: no ISIC {split} data here: neither {CSV_NAMES[split]} nor a challenge folder such as "
        f"{_CHALLENGES[split][2016][0][0]}, nor a folder {SPLIT_FOLDERS[split]}/ with one of them; check the path"
    )


def _places(root: Path, split: str) -> list[tuple[Path, str]]:
    """Where the cases of a split are looked for, one after another, and as which split's."""
    other = "test" if split == "train" else "train"
    below = [(root / parent / SPLIT_FOLDERS[split], split) for parent in ("", "ISIC", "data/ISIC")]
    return [(root, split), *below, (root, other)]


def _present(folder: Path, split: str) -> bool:
    names = [CSV_NAMES[split], *(images for pairs in _CHALLENGES[split].values() for images, _ in pairs)]
    return any((folder / name).exists() for name in names)


def _cases_in(folder: Path, split: str, need_masks: bool) -> Optional[list[Case]]:
    """The split's cases right in `folder`; None if it has none of the layouts."""
    table = folder / CSV_NAMES[split]
    if table.exists():
        return distinct(_from_csv(table, need_masks))
    present = []
    for pairs in _CHALLENGES[split].values():
        here = [pair for pair in pairs if (folder / pair[0]).is_dir()]
        present += here[:1]
    if len(present) > 1:
        names = " and ".join(images for images, _ in present)
        raise InputError(f"{folder}: several datasets, {names}; keep each year in a folder of its own")
    if not present:
        return None
    images, masks = present[0]
    return distinct(_from_folders(folder / images, folder / masks, need_masks))


def _from_csv(table: Path, need_masks: bool) -> Iterable[tuple[str, Case]]:
    """Cases of the published project's CSV, each with its row, for error messages."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(table), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{table}: not a readable CSV file ({error}); restore it") from error
    missing = [column for column in ("img", "seg") if column not in (reader.fieldnames or [])]
    if missing:
        raise InputError(f'{table}: no column "{missing[0]}"; the header must name an index, img and seg')
    if not rows:
        raise InputError(f"{table}: no row below the header; restore the file")
    for line, row in rows:
        where = f"{table}: row {line}"
        if not row["img"] or (need_masks and not row["seg"]):
            column = "seg" if row["img"] else "img"
            raise InputError(f'{where}: column "{column}" is empty; name the file or remove the row')
        image = _beside(table, row["img"])
        if not image.is_file():
            raise InputError(f"{where}: no file {image}; restore it or remove the row")
        mask = _beside(table, row["seg"]) if row["seg"] else None
        if mask is not None and not mask.is_file():
            if need_masks:
                raise InputError(f"{where}: no file {mask}; restore it or remove the row")
            mask = None
        yield where, Case(image.stem, (image,), mask)


def _from_folders(images: Path, masks: Path, need_masks: bool) -> Iterable[tuple[str, Case]]:
    """Cases of a challenge's pair of folders, each with its file, for error messages."""
    if need_masks and not masks.is_dir():
        raise InputError(f"{masks}: no such folder, but {images.name} needs its masks; unpack them beside it")
    by_id = {}
    for path in list_folder(masks) if masks.is_dir() else []:
        name, _, ending = path.stem.rpartition("_")
        if is_picture(path) and ending.lower() == "segmentation":
            if name in by_id:
                raise InputError(f"{path}: a second mask for {name} beside {by_id[name].name}; remove one")
            by_id[name] = path
    files = [path for path in list_folder(images) if is_picture(path)]
    if not files:
        raise InputError(f"{images}: no .jpg or .png image in this folder; unpack the archive again")
    for path in files:
        mask = by_id.get(path.stem)
        if mask is None and need_masks:
            wanted = masks / f"{path.stem}_segmentation.png"
            raise InputError(f"{path}: no mask {wanted}; restore it or remove the image")
        yield str(path), Case(path.stem, (path,), mask)
    lonely = sorted(set(by_id) - {path.stem for path in files})
    if lonely and need_masks:
        raise InputError(f"{by_id[lonely[0]]}: a mask without its image {images / lonely[0]}.jpg; restore or remove it")


def _beside(table: Path, name: str) -> Path:
    """The file that a table names, with the separators of this system or of Windows, and accents as either has them."""
    paths = [table.parent / one for one in (name, name.replace("\\", "/"))]
    paths += [Path(unicodedata.normalize(form, str(paths[-1]))) for form in ("NFC", "NFD")]
    return next((path for path in paths if path.is_file()), paths[1])
