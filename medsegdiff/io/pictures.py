"""Picture files, decoded in one place, and one clear line when they cannot be read."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from PIL import ExifTags, Image, ImageOps

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import is_folder, note, reading
from medsegdiff.io import png, tiff
from medsegdiff.io.arrays import check_size, to_rgb, too_large
from medsegdiff.io.dicom.files import is_dicom

# No others: to read PostScript, for one, Pillow starts a program that runs it.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
_LOSSY = ("JPEG", "MPO", "jpeg", "tiff_jpeg")  # formats, and compressions of TIFF
BIT_DEPTHS = (8, 10, 12, 14, 16)
_DARK = 64  # of 255
_SILENT = logging.NullHandler()


class Picture(NamedTuple):
    """A decoded, upright picture."""

    image: Image.Image
    stored: str
    """Pillow's name of the pixels in the file, such as "L;2" for grey of two bits."""
    lossy: bool
    """Whether its format changes pixels."""

    @property
    def is_deep(self) -> bool:
        """Whether it is grey, wider than 8 bits."""
        return self.image.mode.startswith("I") or self.image.mode == "F"

    @property
    def is_cut(self) -> bool:
        """Whether it is in colour or with alpha, wider than 8 bits, of which Pillow keeps the upper 8."""
        return not self.is_deep and self.stored[-4:-1] == ";16"  # then the byte order; "BGR;16" is 5 bits a channel


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels as a picture's header says, before any pixel is decoded; raises what Pillow raises."""
    _hush()
    with reading(path) as file, Image.open(file, formats=FORMATS) as image:
        return image.size


def decode(path: Path) -> Picture:
    """Decode a picture, turned upright as its EXIF or XMP says, and of several pages the first, with a note.

    Raises:
        InputError: the file is missing, no regular file, empty, damaged, of no format of `FORMATS`, or has more
            than `arrays.MOST_PIXELS`.
    """
    _hush()
    with reading(path) as file:
        # Given open, not by name: files that Pillow opens itself it may map, and it garbles a mapped TIFF on its side.
        try:
            with Image.open(file, formats=FORMATS) as image:
                check_size(path, *image.size)
                stored = _stored(image)
                pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # its others are previews
                image.load()
                if image.format == "PNG":
                    png.check_pixels(file)
                if image.format == "TIFF":
                    tiff.check_pixels(path, image)
                lossy = image.format in _LOSSY or image.info.get("compression") in _LOSSY
                turned = image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
                ImageOps.exif_transpose(image, in_place=True)  # a second one would take 400 MB of the largest
                picture = Picture(image, stored, lossy)
        except InputError:
            raise
        except Image.UnidentifiedImageError:
            wrong = (
                f"not an image of a known format ({', '.join(FORMATS)}); export it as PNG or TIFF, a volume as .nii.gz"
            )
            if is_dicom(path):
                wrong = "a DICOM file without the suffix .dcm; rename it, or give its folder"
            raise InputError(f"{path}: {wrong}") from None
        except Image.DecompressionBombError:
            raise InputError(too_large(path, "too many pixels")) from None
        except Exception as error:  # on damaged files its decoders raise nearly anything
            line = " ".join(str(error).split())
            raise InputError(f"{path}: damaged or cut off ({line}); download or export it again") from error
    if pages > 1:
        note(path, f"has {pages} pages; only the first is read")
    if turned:
        note(path, "is turned upright, as its EXIF or XMP says: its mask is, or must be, of the upright picture")
    return picture


def _hush() -> None:
    """Keep what Pillow and libtiff warn of from standard error: it is refused, noted or harmless here."""
    logging.getLogger("PIL").addHandler(_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # each time: others reset these filters
    with contextlib.suppress(AttributeError, OSError):  # a Pillow without libtiff
        libtiff = ctypes.CDLL(Image.core.__file__)
        libtiff.TIFFSetWarningHandler(None)
        libtiff.TIFFSetErrorHandler(None)


def _stored(image: Image.Image) -> str:
    """`Picture.stored`; `image` is not loaded yet: afterwards Pillow no longer knows."""
    arguments = image.tile[0][3] if image.tile else ""
    name = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return name if isinstance(name, str) else ""


def read_image(path: Path, size: Optional[tuple[int, int]] = None) -> np.ndarray:
    """Read a colour image as uint8 (H, W, 3), RGB in [0, 255]; with `size`, (H, W), its pixels are averaged to that.

    Grey becomes three equal channels, CMYK and palettes their colours. Wider grey is scaled, with a note, from
    what its values fill: 8, 10, 12, 14 or 16 bits, or as fractions 0 to 1 or 0 to 255. Alpha is dropped, not
    composited: the colours under it are what the camera saw, and the published preprocessing does the same.

    Raises:
        InputError: as `decode`, or the pixels' range is not understood.
    """
    picture = decode(path)
    if picture.is_deep:
        return to_rgb(Image.fromarray(_to_eight_bits(np.asarray(picture.image), path)), size)
    pixels = to_rgb(picture.image, None if picture.is_cut else size)
    if picture.is_cut and pixels.max() < _DARK:
        raise InputError(f"{path}: 16-bit colour that fills less than 14 of its bits; export it with 8 bits a channel")
    return to_rgb(Image.fromarray(pixels), size) if picture.is_cut else pixels


def read_grey(path: Path, eight_bits: bool = False) -> np.ndarray:
    """Read a picture of one channel as (H, W), of the type that the file has; colours become their luminance.

    With `eight_bits` wider grey is scaled as by `read_image`, to uint8 in [0, 255].

    Raises:
        InputError: as `decode`, or with `eight_bits` the pixels' range is not understood.
    """
    picture = decode(path)
    if picture.is_deep:
        values = np.asarray(picture.image)
        return _to_eight_bits(values, path) if eight_bits else values
    if picture.image.mode in ("1", "L"):
        return np.array(picture.image.convert("L"))
    return np.array(Image.fromarray(to_rgb(picture.image)).convert("L"))


def look(path: Path) -> tuple[bool, tuple[int, int]]:
    """Whether a picture is in colour, and its stored height and width, by what its file says before its pixels.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    with reading(path) as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
                return not grey, (image.height, image.width)
        except Exception:  # which decoding says in our words
            picture = decode(path)
            return not picture.is_deep, picture.image.size[::-1]


def _to_eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    low, high = values.min(), values.max()
    is_float = values.dtype.kind == "f"
    if not (low >= 0 and high <= (255 if is_float else 65535)):  # not a number, too
        raise InputError(
            f"{path}: pixels from {low} to {high}, where 0 to 65535, or fractions from 0 to 1 or 255, are read; "
            "export it with 8 or 16 bits"
        )
    if is_float:
        full = 1 if high <= 1 else 255
        note(path, f"holds fractions, read as 0 to {full}")
    else:
        bits = next(bits for bits in BIT_DEPTHS if high < 1 << bits)
        full = (1 << bits) - 1
        if high > 0 and bits < BIT_DEPTHS[-1]:
            note(path, f"holds {bits}-bit values in wider pixels, read as 0 to {full}")
    return np.rint(values / (full / 255)).astype(np.uint8)


def is_picture(path: Path) -> bool:
    """Whether it is named as a picture, and not as an ISIC archive's superpixel map."""
    is_named = path.suffix.lower() in SUFFIXES and not path.stem.lower().endswith("_superpixels")
    return is_named and not is_folder(path)
