"""The files of a prediction.

For the image ID, at the image's original resolution: `ID.png` (8-bit, 0 or 255), `ID_prob.png`, `ID_std.png` and
`ID_entropy.png` (16-bit grey, value x 65535) and, where members are kept, `ID_cal.png` and `ID_member0.png`, ...
(16-bit). With several foreground classes `ID.png` has a palette, its values being class indices, and there is a
file for each class: `ID_prob1.png`, `ID_std1.png`, `ID_cal1.png`, `ID_member0_class1.png`, ...
"""

from __future__ import annotations

import colorsys
import re
import struct
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.masks.decision import THRESHOLD, decide
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.masks.uncertainty import entropy

WRITER = "sample"
"""By this name a ledger knows what is written here."""

_COMPANION = re.compile(r"_((prob|std|cal)\d*|entropy|overlay|trace|member\d*(_class\d+)?)$")

# One after another around the hue circle, background black.
_PALETTE_HUES = 7

# Pillow's decoders raise any of these on a cut or damaged file.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def check_id(id: str) -> None:
    """Refuse an image's id that cannot name its prediction.

    Raises:
        InputError: it cannot name a file, or reads as a companion file.
    """
    if not id or Path(id).name != id or id.startswith(".") or _COMPANION.search(id):
        raise InputError(
            f"image id {id!r}: cannot name a prediction file (it is empty, has a slash, starts with a dot "
            "or ends as a companion file does: _prob, _std, _entropy, _cal, _overlay, _trace, _member0); rename it"
        )


@dataclass(frozen=True)
class Maps:
    """What is written of an image: float arrays (M, H, W), one channel for each foreground class, in [0, 1]."""

    probability: np.ndarray
    std: np.ndarray | None = None
    """Standard deviation over the ensemble."""
    cal: np.ndarray | None = None
    """The conditioning network's own probability."""
    members: Sequence[np.ndarray] = ()
    """The members' probabilities."""

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
) -> Path:
    """Write the files of one image into the folder `out`, together; return the path of `ID.png`.

    All that an earlier run wrote of this image is removed. `ID.png` comes last, so that where it exists
    the others do, too.

    Args:
        out: the folder, or the ledger of what sampling wrote there.
        id: the image's id; dots and underscores are welcome.
        maps: what to write, at the image's resolution.
        mask: class indices, uint8 (H, W), where they are not those that the probability decides.
        draw: writes further companions of this image into the folder that it is given.
        about: what to remember of them, see `Ledger.together`.

    Raises:
        InputError: the id cannot name a file or reads as a companion file, a value is outside [0, 1]
            or not a number, a file in the way is not sampling's own, or the disk refuses.
        ValueError: an array is not (M, H, W) or shapes differ.
    """
    ledger = out if isinstance(out, Ledger) else Ledger(out, WRITER)
    check_id(id)
    layers = {f"member{index}": member for index, member in enumerate(maps.members)}
    layers.update({"prob": maps.probability, "std": maps.std, "cal": maps.cal})
    layers = {name: layer for name, layer in layers.items() if layer is not None}
    for name, layer in layers.items():
        if layer.ndim != 3 or layer.shape != maps.probability.shape:
            raise ValueError(f"{id}_{name}: shape {layer.shape}, the probability's is {maps.probability.shape}")
        if not ((layer >= 0) & (layer <= 1)).all():
            path = ledger.folder / f"{id}_{name}.png"
            raise InputError(f"{path}: values outside [0, 1] or not a number, not written; check the weights")
    classes = decide(maps.probability) if mask is None else mask
    with ledger.together(f"{id}.png", files_of(ledger.folder, {id}), about) as stage:
        for name, layer in layers.items():
            for channel, values in enumerate(layer):
                _write_grey(stage / f"{id}_{name}{_class_suffix(name, channel, len(layer))}.png", values)
        _write_grey(stage / f"{id}_entropy.png", entropy(maps.probability).max(axis=0))
        if len(maps.probability) == 1:
            picture = Image.fromarray(classes * np.uint8(255))
        else:
            picture = Image.fromarray(classes)
            picture.putpalette(class_palette(len(maps.probability) + 1))
        _write_png(stage / f"{id}.png", picture)
        if draw is not None:
            draw(stage)
    return ledger.folder / f"{id}.png"


def files_of(folder: Path, ids: Collection[str]) -> list[str]:
    """The names of the files in `folder` that are, or pass for, predictions of the images `ids`; none where it is not.

    Files of an earlier run may not pass for those of a later one.
    """
    if not folder.is_dir():
        return []
    split = [path.name.rpartition(".") for path in sorted(folder.iterdir())]
    masks = [f"{stem}.png" for stem, _, end in split if end == "png" and stem in ids]
    companions = [(stem, end) for stem, _, end in split if end in ("png", "gif") and _COMPANION.search(stem)]
    return masks + [f"{stem}.{end}" for stem, end in companions if _COMPANION.sub("", stem) in ids]


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
    """Read a grey picture of 16 or 8 bits as float32 (H, W) in [0, 1].

    Raises:
        InputError: the file is absent, empty, damaged or not a picture.
    """
    return _read_grey(Path(path))


def read_mask_png(path: Path) -> np.ndarray:
    """Read a binary mask, 0 and 255, as bool (H, W); grey levels between count as mask above one half.

    Raises:
        InputError: the file is absent, empty, damaged or not a picture, or it holds 0 and 1, which would
            read as an empty mask, or several classes.
    """
    grey = _read_grey(Path(path))
    with Image.open(path) as image:
        if image.mode == "P" and np.asarray(image).max() > 1:
            raise InputError(f"{path}: holds several classes; give --num-classes")
    if np.isclose(grey.max(), 1 / 255):
        raise InputError(f"{path}: holds the grey levels 0 and 1; write masks with 0 and 255")
    return grey > THRESHOLD


def find_predictions(folder: Path) -> dict[str, Path]:
    """Map the id of every image with an `ID.png` in `folder` to that file, sorted by id.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder that holds the predictions")
    ids = sorted(path.name[: -len(".png")] for path in folder.glob("*.png"))
    return {id: folder / f"{id}.png" for id in ids if not id.startswith(".") and not _COMPANION.search(id)}


def _write_grey(path: Path, values: np.ndarray) -> None:
    """Values in [0, 1] as 16-bit grey."""
    _write_png(path, Image.fromarray(np.round(values.astype(np.float64) * 65535).astype(np.uint16)))


def _write_png(path: Path, picture: Image.Image) -> None:
    picture.save(path, format="PNG")


def _read_grey(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            sixteen_bits = image.mode.startswith("I")
            grey = np.asarray(image if sixteen_bits else image.convert("L"), dtype=np.float32)
    except _UNREADABLE as error:
        what = "is damaged or not a picture" if path.stat().st_size else "is empty (0 bytes)"
        raise InputError(f"{path}: {what}; write it again") from error
    return grey / np.float32(65535 if sixteen_bits else 255)
