"""The files of a prediction.

For the image ID: `ID.png` (8-bit, 0 or 255), `ID_prob.png` and `ID_std.png` (16-bit grey, value x 65535)
and, where members are kept, `ID_member0.png`, ... (16-bit), all at the image's original resolution.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.runtime.errors import InputError
from medsegdiff.runtime.files import replacing

THRESHOLD = 0.5  # a pixel belongs to the mask where its probability is above

_COMPANION = re.compile(r"_(prob|std|overlay|member\d*)$")

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
            "or ends in _prob, _std, _overlay or _member); rename the image"
        )


def write_prediction(
    out: Path,
    id: str,
    probability: np.ndarray,
    std: np.ndarray | None = None,
    members: Sequence[np.ndarray] = (),
) -> Path:
    """Write the files of one image into the existing folder `out`; return the path of `ID.png`.

    `ID.png` comes last, so that where it exists the others do, too.

    Args:
        out: the folder.
        id: the image's id; dots and underscores are welcome.
        probability: float (H, W) in [0, 1].
        std: standard deviation over the ensemble, float (H, W) in [0, 1].
        members: probabilities of the members, each float (H, W) in [0, 1].

    Raises:
        InputError: the id cannot name a file or reads as a companion file, a value is outside [0, 1]
            or not a number, or the disk refuses.
        ValueError: an array is not (H, W) or shapes differ.
    """
    out = Path(out)
    check_id(id)
    layers = {f"{id}_member{index}": member for index, member in enumerate(members)}
    layers[f"{id}_prob"] = probability
    if std is not None:
        layers[f"{id}_std"] = std
    for name, layer in layers.items():
        if layer.ndim != 2 or layer.shape != probability.shape:
            raise ValueError(f"{name}: shape {layer.shape} where (H, W) {probability.shape} is needed")
        if not ((layer >= 0) & (layer <= 1)).all():
            raise InputError(f"{out / name}.png: values outside [0, 1] or not a number, not written; check the weights")
    for name, layer in layers.items():
        grey = np.round(layer.astype(np.float64) * 65535).astype(np.uint16)
        _write_png(out / f"{name}.png", grey)
    mask = out / f"{id}.png"
    _write_png(mask, np.where(probability > THRESHOLD, 255, 0).astype(np.uint8))
    return mask


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
            read as an empty mask.
    """
    grey = _read_grey(Path(path))
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


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize float (h, w) in [0, 1] to float32 `size` = (H, W): bilinear, antialiased when it shrinks."""
    image = Image.fromarray(np.asarray(probability, dtype=np.float32))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return np.clip(resized, 0, 1)  # rounding may step over the ends


def _write_png(path: Path, grey: np.ndarray) -> None:
    with replacing(path) as beside:
        Image.fromarray(grey).save(beside, format="PNG")


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
