"""TIFF files of kinds that Pillow does not write."""

import struct

import numpy as np
import pytest
from PIL import Image, __version__

from medsegdiff.base.errors import InputError
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_grey, read_image
from medsegdiff.io.tiff import check_pixels

PILLOW = tuple(map(int, __version__.split(".")[:1]))


def write(path, pixels, **tags):
    """Pixels (H, W), or (H, W, C) as they lie in the file; TIFF's tags by their numbers, as t262=0."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    own = {256: pixels.shape[1], 257: pixels.shape[0], 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 8}
    own.update({277: channels, 278: pixels.shape[0], 279: pixels.nbytes, **{int(n[1:]): v for n, v in tags.items()}})
    content, parts = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(), []
    for tag, value in sorted(own.items()):
        repeated = 2 if tag == 258 and channels == 2 else 1
        parts.append(struct.pack("<HHIHH", tag, 3, repeated, value, value if repeated == 2 else 0))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(parts)) + b"".join(parts) + bytes(4))
    return path


GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)


def test_plain_ones_are_read(tmp_path):
    np.testing.assert_array_equal(read_grey(write(tmp_path / "a.tif", GREY)), GREY)
    np.testing.assert_array_equal(read_grey(write(tmp_path / "b.tif", GREY * np.uint16(3000))), GREY * np.uint16(3000))
    np.testing.assert_array_equal(read_grey(write(tmp_path / "c.tif", 255 - GREY, t262=0)), GREY)
    np.testing.assert_array_equal(read_grey(write(tmp_path / "d.tif", GREY.astype(np.int8), t339=2)), GREY)


@pytest.mark.parametrize(
    ("pixels", "tags", "message"),
    [
        (GREY * np.uint16(3000), {"t262": 0}, "16-bit grey in which 0 is white; export it with 0 as black"),
        (GREY.astype(np.int8) - np.int8(5), {"t339": 2}, "holds values below 0; export it with 8 or 16 bits"),
    ],
)
def test_what_pillow_takes_for_something_else_is_refused(tmp_path, pixels, tags, message):
    path = write(tmp_path / "a.tif", pixels, **tags)
    for read in (read_image, read_grey, read_labels):
        with pytest.raises(InputError, match=message):
            read(path)


def test_where_0_is_white_a_note_says_so(tmp_path, capsys):
    """Programs that save a mask of true and false may mean the opposite."""
    path = write(tmp_path / "a.tif", np.where(GREY > 5, 255, 0).astype(np.uint8), t262=0)
    np.testing.assert_array_equal(read_mask(path), GREY <= 5)
    assert capsys.readouterr().err == f"note: {path}: says that 0 is white, and is read so\n"


def test_planes_of_16_bits_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path, compression="raw")
    with Image.open(path) as image:
        image.load()
        image.tag_v2[258], image.tag_v2[284] = (16, 16, 16), 2
        with pytest.raises(InputError, match="16-bit colours, each in a plane of its own"):
            check_pixels(path, image)


def test_channels_of_no_known_meaning_are_said(tmp_path, capsys):
    path = write(tmp_path / "a.tif", np.stack([GREY, GREY * 2], axis=2), t338=0)
    if PILLOW < (12,):  # Python 3.9 has none newer
        with pytest.raises(InputError, match="not an image of a known format"):
            read_image(path)
        return
    np.testing.assert_array_equal(read_image(path)[..., 0], GREY)
    assert "a.tif: has channels of unknown meaning; they are left out" in capsys.readouterr().err


def test_a_mask_compressed_as_a_jpeg_is_no_more_exact_in_a_tiff(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(GREY).save(path, compression="jpeg")
    with pytest.raises(InputError, match="a JPEG, which does not keep class indices"):
        read_labels(path)
