"""The files of a prediction.

For the image ID, at the image's original resolution: `ID.png` (8-bit, 0 or 255) and `ID_prob.png` (16-bit grey,
value x 65535); on request, in 16 bits too, `ID_std.png` and `ID_entropy.png` and, where members are kept,
`ID_cal.png` and `ID_member0.png`, ... With several foreground classes `ID.png` has a palette, its values being class
indices, and there is a file for each class: `ID_prob1.png`, `ID_std1.png`, `ID_cal1.png`, `ID_member0_class1.png`, ...

Of a volume these are NIfTI files, `ID.nii.gz`, `ID_prob.nii.gz`, ..., on the volume's own grid, with the values that
its dataset's masks have for the classes; of DICOM images there is also `ID.dcm`, a segmentation that refers to them.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from medsegdiff.base import system
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.base.reading import check_name, note
from medsegdiff.io.dicom.segmentation import write_segmentation
from medsegdiff.io.dicom.series import Source
from medsegdiff.io.folders import list_folder
from medsegdiff.io.labels import to_values
from medsegdiff.io.masks import find_masks
from medsegdiff.io.pictures import decode, is_picture
from medsegdiff.io.png import write_png
from medsegdiff.io.volumes import DICOM, SUFFIXES, Geometry, is_volume, read_volume, stem, write_volume
from medsegdiff.masks.decision import decide
from medsegdiff.masks.resizing import made_at, resize_probability
from medsegdiff.masks.uncertainty import entropy

PNG, NIFTI = ".png", ".nii.gz"
WRITER = "sample"
"""By this name a ledger knows what is written here."""

_COMPANION = re.compile(r"_((prob|std|cal)\d*|entropy|overlay|trace|member\d*(_class\d+)?)$")

_LONGEST_ID = 255 - len("_member9999_class255.png")  # bytes, of those that file systems give a name

# One after another around the hue circle, background black.
_PALETTE_HUES = 7


def check_id(id: str) -> None:
    """Refuse an image's id that cannot name its prediction.

    Raises:
        InputError: it cannot name a file, is not UTF-8, is too long for the names of companion files, or reads as one.
    """
    if not id or Path(id).name != id or id.startswith(".") or _COMPANION.search(id):
        raise InputError(
            f"image id {id!r}: cannot name a prediction file (it is empty, has a slash, starts with a dot "
            "or ends as a companion file does: _prob, _std, _entropy, _cal, _overlay, _trace, _member0); rename it"
        )
    check_name(Path(id))
    if not system.names_a_file(f"{id}{PNG}"):
        raise InputError(f"image id {id!r}: cannot be a file's name on this system; rename it")
    length = len(id.encode("utf-8"))
    if length > _LONGEST_ID or not id.isprintable():
        what = f"longer than {_LONGEST_ID} bytes" if length > _LONGEST_ID else "not printable"
        raise InputError(f"image id {id[:40]!r}...: its name is {what}, too much for its predictions'; rename it")


class Grid(NamedTuple):
    """How a volume's files are written."""

    geometry: Geometry
    labels: Mapping[int, int]


@dataclass(frozen=True)
class Maps:
    """What is written of an image: float arrays (M, H, W), or (M, X, Y, Z) of a volume, in [0, 1].

    There is one channel for each foreground class.
    """

    probability: np.ndarray
    std: np.ndarray | None = None
    """Standard deviation over the ensemble; with it the entropy of the probability is written."""
    cal: np.ndarray | None = None
    """The conditioning network's own probability."""
    members: Sequence[np.ndarray] = ()
    """The members' probabilities."""
    size: tuple[int, int] | None = None
    """What (H, W) they are resized to as they are written; None: their own."""

    def classes(self) -> np.ndarray:
        """The class of each pixel, uint8, see `decide`."""
        return decide(self.probability) if self.size is None else made_at(self.probability, self.size, decide, np.uint8)

    def resized(self, size: tuple[int, int]) -> Maps:
        """All of them at `size` = (H, W), see `resize_probability`."""

        def resize(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.stack([resize_probability(channel, size) for channel in array])

        return Maps(
            resize(self.probability), resize(self.std), resize(self.cal), [resize(member) for member in self.members]
        )


def write_prediction(
    out: Path | Ledger,
    id: str,
    maps: Maps,
    mask: np.ndarray | None = None,
    draw: Callable[[Path], None] | None = None,
    about: dict[str, Any] | None = None,
    grid: Grid | None = None,
) -> Path:
    """Write the files of one image into the folder `out`, together; return the path of `ID.png`, or `ID.nii.gz`.

    All that an earlier run wrote of this image is removed. That file comes last, so that where it exists
    the others do, too.

    Args:
        out: the folder, or the ledger of what sampling wrote there.
        id: the image's id; dots and underscores are welcome.
        maps: what to write, at the image's resolution.
        mask: class indices, uint8 (H, W), where they are not those that the probability decides.
        draw: writes further companions of this image into the folder that it is given.
        about: what to remember of them, see `Ledger.together`.
        grid: of a volume.

    Raises:
        InputError: the id cannot name a file or reads as a companion file, a value is outside [0, 1]
            or not a number, a file in the way is not sampling's own, or the disk refuses.
        ValueError: an array is neither (M, H, W) nor (M, X, Y, Z), or shapes differ.
    """
    ledger = out if isinstance(out, Ledger) else Ledger(out, WRITER)
    check_id(id)
    end = NIFTI if grid else PNG
    layers = {f"member{index}": member for index, member in enumerate(maps.members)}
    layers.update({"prob": maps.probability, "std": maps.std, "cal": maps.cal})
    layers = {name: layer for name, layer in layers.items() if layer is not None}
    for name, layer in layers.items():
        if layer.ndim != (4 if grid else 3) or layer.shape != maps.probability.shape:
            raise ValueError(f"{id}_{name}: shape {layer.shape}, the probability's is {maps.probability.shape}")
        if not ((layer >= 0) & (layer <= 1)).all():
            path = ledger.folder / f"{id}_{name}{end}"
            raise InputError(f"{path}: values outside [0, 1] or not a number, not written; check the weights")
    classes = maps.classes() if mask is None else mask
    size = maps.size or maps.probability.shape[-2:]
    with ledger.together(f"{id}{end}", files_of(ledger.folder, {id}), about) as stage:

        def write_map(name: str, channels: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> None:
            path = stage / f"{id}_{name}{end}"
            if grid:
                write_volume(path, make(channels).astype(np.float32), grid.geometry)
            else:
                grey = made_at(channels, size, lambda strip: np.rint(make(strip).astype(np.float64) * 65535), np.uint16)
                write_png(path, grey)

        for name, layer in layers.items():
            for channel, values in enumerate(layer):
                write_map(f"{name}{_class_suffix(name, channel, len(layer))}", values[None], lambda one: one[0])
        if maps.std is not None:
            write_map("entropy", maps.probability, lambda several: entropy(several).max(axis=0))
        if draw is not None:
            draw(stage)
        if grid:
            write_volume(stage / f"{id}{end}", to_values(classes, grid.labels), grid.geometry)
            if isinstance(grid.geometry.header, Source):
                _write_segmentation(stage / f"{id}{DICOM}", classes, len(maps.probability), grid.geometry)
        elif len(maps.probability) == 1:
            write_png(stage / f"{id}.png", classes * np.uint8(255))
        else:
            write_png(stage / f"{id}.png", classes, class_palette(len(maps.probability) + 1))
    return ledger.folder / f"{id}{end}"


def _write_segmentation(path: Path, classes: np.ndarray, count: int, geometry: Geometry) -> None:
    """Beside NIfTI, which is written in any case: some images' headers lack what DICOM demands."""
    try:
        write_segmentation(path, classes, geometry, {label: f"class {label}" for label in range(1, count + 1)})
    except InputError as error:
        note(path, str(error).removeprefix(f"{path}: "))


def files_of(folder: Path, ids: Collection[str]) -> list[str]:
    """The names of the files in `folder` that are, or pass for, predictions of the images `ids`; none where it is not.

    Files of an earlier run may not pass for those of a later one.
    """
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())  # of folders, too, which bar the way
    ends = (PNG, NIFTI, DICOM, ".gif")
    named = [(name[: -len(end)], name) for name in names for end in ends if name.endswith(end)]
    masks = [name for id, name in named if id in ids and not name.endswith(".gif")]
    return masks + [name for id, name in named if _COMPANION.search(id) and _COMPANION.sub("", id) in ids]


def _class_suffix(name: str, channel: int, channels: int) -> str:
    if channels == 1:
        return ""
    return f"_class{channel + 1}" if name.startswith("member") else str(channel + 1)


def class_palette(classes: int) -> list[int]:
    """RGB of every class in a row, 0 to 255: background black, hues that differ."""
    colours = [(0.0, 0.0, 0.0)]
    for index in range(classes - 1):
        turn, hue = divmod(index, _PALETTE_HUES)
        colours.append(colorsys.hsv_to_rgb((hue + turn / 2) / _PALETTE_HUES, 0.75, 1 / (1 + turn / 4)))
    return [round(255 * part) for colour in colours for part in colour]


def read_probability(path: Path) -> np.ndarray:
    """Read a grey picture as float32 (H, W) in [0, 1]: of 16 bits 65535 is 1, of 8 bits 255, of fractions 1.

    Or a volume, (X, Y, Z), of what its header makes of its values.

    Raises:
        InputError: as `pictures.decode`, or a value is outside that range.
    """
    values = read_volume(path).values.astype(np.float32) if is_volume(path) else _fractions(path)
    values = np.where((values > 1) & (values < 1 + 1e-6), np.float32(1), values)  # a slope of 1 / 65535 is rounded
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"{path}: values from {values.min()} to {values.max()}, not a probability; write it again")
    return values


def _fractions(path: Path) -> np.ndarray:
    picture = decode(path)
    image = picture.image
    if picture.is_cut:
        raise InputError(f"{path}: 16 bits a channel in colour or with alpha; export it as grey")
    values = np.asarray(image if picture.is_deep else image.convert("L"), dtype=np.float32)
    with np.errstate(invalid="ignore"):  # fractions that are not numbers are refused by the caller
        return values / np.float32(1 if image.mode == "F" else 65535 if picture.is_deep else 255)


def find_predictions(folder: Path) -> dict[str, Path]:
    """Map the id of every image with a mask in `folder` to that file, sorted by id; see `masks.find_masks`.

    Raises:
        InputError: there is no such folder, or it has two masks for an id.
    """
    files = [path for path in list_folder(folder) if is_picture(path) or path.name.lower().endswith(SUFFIXES)]
    return find_masks([path for path in files if not _COMPANION.search(stem(path))])
