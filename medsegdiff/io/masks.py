"""Masks as users store them: one reading of them for training, predictions and ground truth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import check_name, composed, note
from medsegdiff.io.pictures import Picture, decode
from medsegdiff.io.volumes import stem

_HIGHEST_LABEL = 255
_SEGMENTATION = re.compile(r"_segmentation$", re.IGNORECASE)
_SPARE = "export it black and white, as PNG, or give `num_classes` where it holds class indices"
_FEW_LEVELS = 8
_FOREGROUND = (1, 255, 65535)  # as most programs write it
# JPEG moves levels: up to the first it is all black, from the second on it has white; grey is what differs so little,
# but for a few pixels.
_BLACK, _WHITE, _GREYISH, _STRAY = 16, 192, 32, 0.01
_BETWEEN = (0.1, 0.9)  # neither background nor foreground; a mask has little of it


def read_mask(path: Path) -> np.ndarray:
    """Read a mask of one foreground class: how much of each pixel is foreground, float32 (H, W) in [0, 1].

    * Of two values the higher is foreground, with a note where it may be a class; of one value 0 is background.
    * More values are grey levels of the full range (255, or 65535 of 16 bits, or 1 of fractions).
    * A JPEG is foreground above one half.
    * Colours must be grey, or black and one other; a shape may be in alpha alone.

    Raises:
        InputError: as `decode`, or it is none of these: several classes, colours, or a picture, not a mask.
    """
    picture = decode(path)
    values = _seen(picture, path)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < np.inf):
        raise InputError(f"{path}: holds values below 0 or not a number; {_SPARE}")
    if picture.lossy:
        if high <= _BLACK:
            if high:
                note(path, f"a JPEG whose highest grey level is {high}: read as empty; a mask of 0 and 1 keep as PNG")
            return np.zeros(values.shape, np.float32)
        if high < _WHITE:
            raise InputError(f"{path}: a JPEG whose highest grey level is {high}, far from white; {_SPARE}")
        return (_of_full(values, high, path) > 0.5).astype(np.float32)
    levels = _levels(values)
    if len(levels) == 1 and high not in (0, *_FOREGROUND):
        raise InputError(f"{path}: holds the value {high} alone, which may mean anything; write masks with 0 and 255")
    if len(levels) == 2 and (low or high not in _FOREGROUND):
        note(path, f"holds the values {low} and {high} alone; {high} is foreground")
    if len(levels) <= 2:
        return (values == high).astype(np.float32) if high else np.zeros(values.shape, np.float32)
    share = _of_full(values, high, path)
    if len(levels) <= _FEW_LEVELS:
        note(path, f"holds the levels {', '.join(map(str, levels))}; those above one half are foreground")
    return share


def read_labels(path: Path) -> np.ndarray:
    """Read a mask of several classes as uint8 (H, W): the index of each pixel's class, 0 is background.

    The indices are what the file stores: a palette's entries, not their colours, and grey values as they are,
    those of files with 1, 2, 4 or 16 bits a pixel, too.

    Raises:
        InputError: as `decode`, or the image is in colour, has an alpha channel, is a JPEG or holds a value above 255.
    """
    picture = decode(path)
    image, export = picture.image, "export the mask as class indices in a grey or palette PNG"
    if image.mode == "F":
        raise InputError(f"{path}: pixels are not 8-bit or 16-bit whole numbers; {export}")
    if picture.is_deep:
        values = np.asarray(image)
        if not 0 <= values.min() <= values.max() <= _HIGHEST_LABEL:
            worst = values.min() if values.min() < 0 else values.max()
            raise InputError(f"{path}: holds the value {worst}, but class indices are 0 to {_HIGHEST_LABEL}; {export}")
        return values.astype(np.uint8)
    if image.mode not in ("1", "L", "P"):
        raise InputError(f"{path}: in colour or with alpha ({image.mode}), where class indices were expected; {export}")
    if picture.lossy:
        raise InputError(f"{path}: a JPEG, which does not keep class indices as they are; {export}")
    # Below 8 bits Pillow stretches grey to the full range.
    step = {"L;2": 255 // 3, "L;4": 255 // 15}.get(picture.stored, 1)
    return np.array(image).astype(np.uint8) // np.uint8(step)


def find_masks(pictures: Sequence[Path]) -> dict[str, Path]:
    """Map ids to the masks among a folder's pictures, sorted: `ID_Segmentation.png` in any case, else plain `ID.png`.

    Where at least one name ends in `_Segmentation`, the others are not taken for masks, with a note. Any format
    will do; beside a JPEG of the same name, which is the image, the other is the mask.

    Raises:
        InputError: there are two masks for an id, or a name is not UTF-8.
    """
    named = [path for path in pictures if _SEGMENTATION.search(stem(path))]
    if 0 < len(named) < len(pictures):
        other = next(path for path in pictures if path not in named)
        note(other.parent, f"only files named _Segmentation are taken for masks, not {other.name}")
    found: dict[str, Path] = {}
    for path in named or pictures:
        check_name(path)
        id = composed(_SEGMENTATION.sub("", stem(path)))
        rivals = [found[id], path] if id in found else [path]
        lossless = [other for other in rivals if other.suffix.lower() not in (".jpg", ".jpeg")] or rivals
        if len(lossless) > 1:
            raise InputError(f"{path}: a second mask for {id} beside {found[id].name}; remove one")
        found[id] = lossless[0]
    return dict(sorted(found.items()))


def _seen(picture: Picture, path: Path) -> np.ndarray:
    """The grey levels (H, W) that a person sees, or the alpha where the shape is in it alone."""
    image = picture.image
    if picture.is_deep:
        return np.asarray(image)
    if picture.is_cut:
        raise InputError(f"{path}: 16 bits a channel in colour or with alpha; {_SPARE}")
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    with_alpha = "A" in image.getbands() or "transparency" in image.info
    pixels = np.array(image.convert("RGBA" if with_alpha else "RGB"))
    grey = _grey(pixels[..., :3], picture, path)
    alpha = pixels[..., 3] if with_alpha else np.full_like(grey, 255)
    if alpha.min() == 255:
        return grey
    if alpha.max() > 0 and grey.min() == grey.max():
        return alpha
    half = (int(grey.min()) + int(grey.max())) / 2
    if not (alpha[grey > half] > 127).all():
        raise InputError(f"{path}: its shape and its transparency disagree; {_SPARE}")
    return grey


def _grey(colour: np.ndarray, picture: Picture, path: Path) -> np.ndarray:
    """The grey levels of uint8 (H, W, 3): of its greys, or of black and one other colour, which is white then."""
    difference = colour.max(axis=2) - colour.min(axis=2)
    allowed, stray = (_GREYISH, _STRAY) if picture.lossy else (0, 0)
    if np.mean(difference > allowed) <= stray:
        return np.array(picture.image.convert("RGB").convert("L"))
    packed = colour.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    if not picture.lossy and packed.min() == 0 and (packed[packed > 0] == packed.max()).all():
        return np.where(packed > 0, 255, 0).astype(np.uint8)
    if picture.image.mode == "P":
        raise InputError(f"{path}: holds several classes; give `num_classes`, or {_SPARE.partition(', or')[0]}")
    raise InputError(f"{path}: in colour, other than black and one more; {_SPARE}")


def _levels(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    return np.unique(values)


def _of_full(values: np.ndarray, high: float, path: Path) -> np.ndarray:
    """Grey levels as a share of their full range, float32 in [0, 1]."""
    full = next((full for full in ((1,) if values.dtype.kind == "f" else ()) + (255, 65535) if high <= full), np.inf)
    if 2 * high <= full:
        raise InputError(
            f"{path}: its highest grey level is {high}; write masks with 0 and 255, or 0 and 1, "
            "or give `num_classes` where they hold class indices"
        )
    share = values.astype(np.float32) / np.float32(full)
    between = np.mean((share > _BETWEEN[0]) & (share < _BETWEEN[1]))
    if between > 0.5:
        raise InputError(
            f"{path}: {between:.0%} of its pixels are between black and white: a picture, or several classes, "
            f"not a mask; {_SPARE}"
        )
    return share
