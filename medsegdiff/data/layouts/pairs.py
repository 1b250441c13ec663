"""Folders of images beside folders of masks, matched by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import composed, is_folder, note
from medsegdiff.data.cases import Case, by_channel, distinct, list_images, numbered
from medsegdiff.io.folders import glance, list_folder
from medsegdiff.io.volumes import stem

IMAGES = ("images", "image", "imgs", "img", "inputs", "input", "data")
_DRAWN, _VIEW = ("1st_manual", "manual1", "manual"), "mask"  # of retinal vessels; `mask` is the field of view
MASKS = (
    *("1st_manual", "manual1", "masks", "manual", "mask"),
    *("labels", "label", "segmentations", "segmentation", "segs", "seg", "gt", "gts"),
    *("groundtruth", "groundtruths", "annotations", "annotation", "targets", "target"),
)
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
_ENDINGS = r"mask|segmentation|seg|label|labels|gt|groundtruth|annotation|manual\d?"
_SUFFIX = re.compile(rf"[_\-. ](?:{_ENDINGS})$", re.IGNORECASE)
_SPLIT = re.compile(r"_(?:training|test)$", re.IGNORECASE)  # of DRIVE's images, not of their masks


class Pair(NamedTuple):
    """A folder of images and that of their masks, which may be the same."""

    images: Path
    masks: Optional[Path]


def pair_of(root: Path, split: str) -> Optional[Pair]:
    """The folders of a split: `train/images`, or `images/train`, or those of no split right in `root` for "train".

    Without a folder of images, images and masks lie together, told apart by the masks' suffix or by folders of each
    patient's own. A validation split without a test split is one.
    """
    here, found = _pair(root), {}
    for part, names in SPLITS.items():
        below, inner = _child(root, names), here and _child(here.images, names)
        if below is not None:
            found[part] = _pair(below) or Pair(below, below)
        elif here and inner:
            found[part] = Pair(inner, here.masks and _child(here.masks, names))
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if any(_are_drawn(pair) for pair in found.values()):
        found = {part: Pair(pair.images, None) if _are_views(pair) else pair for part, pair in found.items()}
    return found.get(split) if found or split != "train" else here or Pair(root, root)


def image_name(mask: Path) -> str:
    """The name of a mask's image, `composed`: its own without a suffix such as `_mask`."""
    return composed(_SUFFIX.sub("", stem(mask)))


def masks_among(folder: Path) -> set[Path]:
    """Right in a folder of images, what is a mask by its name, whether or not it has an image of that name."""
    files = list_images(folder)
    masks = {path for path in files if _is_mask(path, folder)}
    return masks if len(masks) < len(files) else set()


def holds(pair: Optional[Pair], accepts: Callable[[Path], bool]) -> bool:
    """Whether there are images, and where masks would lie among them, a mask."""
    if pair is None:
        return False
    files = (path for folder in glance(pair.images) for path in list_folder(folder) if accepts(path))
    return any(pair.images != pair.masks or _is_mask(path, pair.images) for path in files)


def cases_of(pair: Pair, accepts: Callable[[Path], bool], need_masks: bool) -> list[Case]:
    """The cases of a pair of folders, with those below them; the images of a folder below are one patient's.

    A mask has its image's name, in any format, with or without a suffix such as `_mask` or `_segmentation`. Folders
    below that are called `images` or `masks`, or alike, count in no name. Files `ID_0000`, `ID_0001`, ... whose masks
    are named `ID` are the channels of one image.

    Raises:
        InputError: there is no image, or two of a name; two masks of a name; with `need_masks` an image has no mask,
            or a mask no image.
    """
    together = pair.images == pair.masks
    listed = list_images(pair.images, below=True)
    files = [path for path in listed if accepts(path)]
    other = next((path for path in listed if not accepts(path)), None)
    if other is not None:
        note(pair.images, f"{other.name} and its like are of another kind than the images that are read: left out")
    files = [path for path in files if not (together and _is_mask(path, pair.images))]
    if not files:
        raise InputError(f"{pair.images}: holds no image that this layout reads; check the path, or `data_name`")
    images, grouped = _by_base(files), by_channel(files) or {}
    keys = {base: _key(base, pair.images) for base in (*images, *grouped)}
    whole = {name for key in keys.values() for name in (key.name, key.as_posix())}
    masks = _masks(pair.masks, together, accepts, whole) if pair.masks else {}
    _tell_of_others(pair, accepts)
    if not any(keys[base].as_posix() in masks or keys[base].name in masks for base in images):
        images = grouped or images
        _check_channels({} if grouped else numbered(files), masks)
    located = []
    for base, channels in images.items():
        below = keys[base]
        names = (below.as_posix(), below.name, _SPLIT.sub("", below.name))
        mask = next((masks.pop(name) for name in names if name in masks), None)
        if mask is None and need_masks:
            where = f"{pair.masks or pair.images.parent / 'masks'}/{base.relative_to(pair.images)}"
            raise InputError(f"{channels[0]}: no mask {where}.* or {where}_mask.*; restore it or remove the image")
        patient = "" if below.parent == Path() else below.parent.as_posix()
        located.append((str(channels[0]), Case(base.name, channels, mask, patient)))
    if masks and need_masks:
        raise InputError(f"{min(masks.values())}: a mask without its image; restore the image or remove the mask")
    return distinct(located)


def _tell_of_others(pair: Pair, accepts: Callable[[Path], bool]) -> None:
    """Say which folders beside that of the masks might be it by their names, and what they hold, and are not."""
    beside = list_folder(pair.masks.parent) if pair.masks and pair.masks.parent == pair.images.parent else []
    for folder in beside:
        named = folder.name.lower() in MASKS and folder not in pair and is_folder(folder)
        if named and any(map(accepts, list_images(folder))):
            note(folder, f"is not taken for the masks, which are those of {folder.with_name(pair.masks.name)}")


def _are_drawn(pair: Pair) -> bool:
    return pair.masks is not None and pair.masks.name.lower() in _DRAWN


def _are_views(pair: Pair) -> bool:
    return pair.masks is not None and pair.masks.name.lower() == _VIEW


def _check_channels(found: Mapping[Path, Mapping[int, Path]], masks: Collection[str]) -> None:
    """Refuse files of channels, which masks tell from files that are numbered, where one is missing."""
    most = max((max(channels) for channels in found.values()), default=0)
    for base, channels in found.items() if any(base.name in masks for base in found) else ():
        for number in range(most + 1):
            if number not in channels:
                one = next(iter(channels.values()))
                lacking = f"{base.name}_{number:04d}{one.name[len(stem(one)) :]}"
                raise InputError(f"{base.with_name(lacking)}: no such channel beside {one.name}; restore it")


def _is_mask(path: Path, root: Path) -> bool:
    """Whether a file below `root`, where images and masks lie together, is a mask."""
    folders = path.relative_to(root).parts[:-1]
    return bool(_SUFFIX.search(stem(path))) or any(name.lower() in MASKS for name in folders)


def _key(path: Path, root: Path) -> Path:
    """A path below `root`, `composed`, without folders that say images or masks alone."""
    *folders, name = map(composed, path.relative_to(root).parts)
    return Path(*(folder for folder in folders if folder.lower() not in (*IMAGES, *MASKS)), name)


def _by_base(files: Sequence[Path]) -> dict[Path, tuple[Path, ...]]:
    found: dict[Path, tuple[Path, ...]] = {}
    for file in files:
        base = file.with_name(stem(file))
        if base in found:
            raise InputError(f"{file}: an image of the same name as {found[base][0].name}; rename or remove one")
        found[base] = (file,)
    return found


def _masks(folder: Path, together: bool, accepts: Callable[[Path], bool], whole: Collection[str]) -> dict[str, Path]:
    """Masks by their names, after those of the folders below `folder`: without suffixes, but for those in `whole`."""
    found: dict[str, Path] = {}
    for path in list_images(folder, below=True):
        if not accepts(path) or (together and not _is_mask(path, folder)):
            continue
        own = _key(path, folder).with_name(composed(stem(path)))
        named = own.as_posix() in whole or own.name in whole
        key = (own if named else own.with_name(image_name(path))).as_posix()
        if key in found:
            raise InputError(f"{path}: a second mask for {key} beside {found[key].name}; remove one")
        found[key] = path
    return found


def _pair(root: Path) -> Optional[Pair]:
    images = _child(root, IMAGES)
    if images is None:
        return None
    drawn = _child(root, _DRAWN)  # or a user's manual
    empty = drawn is not None and not any(map(list_images, glance(drawn)))
    return Pair(images, _child(root, [name for name in MASKS if not (empty and name in _DRAWN)]))


def _child(root: Path, names: Sequence[str]) -> Optional[Path]:
    """The first folder of `root` that is called one of `names`, in any case."""
    folders = {path.name.lower(): path for path in list_folder(root) if is_folder(path)} if is_folder(root) else {}
    return next((folders[name] for name in names if name in folders), None)
