"""What every dataset is made of: images, pictures or volumes, with their masks."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import check_name, composed, is_folder, note
from medsegdiff.io.folders import folders_below, glance, list_folder
from medsegdiff.io.pictures import SUFFIXES, is_picture
from medsegdiff.io.volumes import SUFFIXES as VOLUMES
from medsegdiff.io.volumes import is_series, is_volume, stem

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Case:
    """One image, a picture or a volume, and its mask where there is one; `id` is unique within the dataset."""

    id: str
    channels: tuple[Path, ...]
    """Its files: of one channel each, or one with all channels."""
    mask: Optional[Path] = None
    patient: str = ""
    """Whose image it is, where there may be several of one."""

    @property
    def image(self) -> Path:
        """The first file, which stands for all."""
        return self.channels[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the mask last."""
        return (*self.channels, self.mask) if self.mask else self.channels

    @property
    def group(self) -> str:
        """What is never divided between training and test: the patient, or the image alone."""
        return self.patient or self.id


def from_files(paths: Iterable[Path], several_channels: bool = False) -> list[Case]:
    """Images without masks from files and from folders of files; see `distinct` for their ids.

    Of a folder the images right in it are taken, or where it has none those in its subfolders. Images of a
    folder that differ in their suffix alone have it in their ids. With `several_channels` the files `ID_0000`,
    `ID_0001`, ... are those of one image.

    Raises:
        InputError: a path is missing, a folder holds no image, or an image is given twice.
    """
    found: list[Path] = []
    for path in paths:
        files = [path]
        if is_folder(path) and not is_series(path):
            files, searched = list_images(path), [path]
            for folder in [] if files else filter(is_folder, list_folder(path)):
                files += list_images(folder)
                searched.append(folder)
            if not files:
                known = ", ".join([*sorted(SUFFIXES), *VOLUMES])
                where = "nor does a folder in it; give a folder of images, or a dataset's as `data_dir`"
                raise InputError(f"{path}: holds no image ({known}), {where}")
            taken = {*searched, *files}
            others = (folder for folder in glance(path) if folder not in taken and list_images(folder))
            for folder in itertools.islice(others, 1):
                note(folder, f"holds further images, which are not included with those of {path}; give it, too")
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        found += files
    grouped = by_channel(found) if several_channels else None
    if grouped:
        return distinct((str(files[0]), Case(base.name, files)) for base, files in grouped.items())
    alike = Counter(file.with_name(stem(file)) for file in set(found))
    ids = (stem(file) if alike[file.with_name(stem(file))] == 1 else file.name.replace(".", "_") for file in found)
    return distinct((str(file), Case(id, (file,))) for id, file in zip(ids, found))


def is_image(path: Path) -> bool:
    """Whether it is named as a picture or a volume, or is the folder of a DICOM series."""
    return is_picture(path) or is_volume(path)


def list_images(folder: Path, below: bool = False) -> list[Path]:
    """The pictures and volumes of a folder, by name; with `below` those of its subfolders, too.

    Raises:
        InputError: the folder is missing, not a folder or forbidden.
    """
    inside = list_folder(folder)
    if below:  # of a series, which is one image, nothing below counts
        folders = folders_below(folder, lambda path: is_folder(path) and not is_image(path))
        inside = sorted(path for one in folders for path in list_folder(one))
    return [path for path in inside if is_image(path)]


def by_channel(files: Iterable[Path]) -> Optional[dict[Path, tuple[Path, ...]]]:
    """Files `ID_0000`, `ID_0001`, ... by their path without number and suffix; None unless all are named so.

    Each must have the same channels, from 0 on.
    """
    found = numbered(files)
    wanted = range(max(map(len, found.values()), default=0))
    if not found or any(sorted(channels) != list(wanted) for channels in found.values()):
        return None
    return {base: tuple(channels[number] for number in wanted) for base, channels in found.items()}


def numbered(files: Iterable[Path]) -> dict[Path, dict[int, Path]]:
    """As `by_channel`, each by its numbers, whatever these are; empty unless all are named so.

    Raises:
        InputError: two files have a name and a number in common.
    """
    found: dict[Path, dict[int, Path]] = {}
    for file in files:
        named = _CHANNEL.fullmatch(stem(file))
        if named is None:
            return {}
        first = found.setdefault(file.with_name(named[1]), {}).setdefault(int(named[2]), file)
        if first != file:
            raise InputError(f"{file}: an image of the same name as {first.name}; rename or remove one")
    return found


def distinct(located: Iterable[tuple[str, Case]]) -> list[Case]:
    """The cases with distinct ids: those of the same name in several folders are named after their folders, too.

    Names are compared, and written, with their accents as `composed` has them.

    Each is given with its place, for error messages.

    Raises:
        InputError: two images of a folder share a name, or one's is not UTF-8.
    """
    rivals: dict[str, list[tuple[str, Case]]] = {}
    seen: dict[str, Case] = {}
    located = [(where, replace(case, id=composed(case.id), patient=composed(case.patient))) for where, case in located]
    for where, case in located:
        check_name(case.image)
        rivals.setdefault(case.id, []).append((where, case))
    for where, case in located:
        named = _named(case, [other.image for _, other in rivals[case.id]])
        if named.id in seen:
            raise InputError(f"{where}: id {named.id} occurs twice (also {seen[named.id].image}); remove or rename one")
        seen[named.id] = named
    return list(seen.values())


def _named(case: Case, rivals: Sequence[Path]) -> Case:
    """`case` with as many of its folders' names before its id as tell it from `rivals`, its own image among them."""
    folders = [path.absolute().parent.parts for path in rivals]
    own = case.image.absolute().parent.parts
    count = 0
    while len(folders) > 1 and count < len(own):
        count += 1
        folders = [parts for parts in folders if parts[-count:] == own[-count:]]
    if len(folders) > 1 or not count:  # alone, or in one folder with another: then nothing tells them apart
        return case
    return replace(case, id=composed("_".join([*own[-count:], case.id])))
