from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.io import arrays, pictures
from medsegdiff.io.folders import list_folder
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import is_picture, read_image
from medsegdiff.io.predictions import read_probability

ORIENTATION = 0x0112


def refusal(function, path):
    with pytest.raises(InputError) as caught:
        function(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_rgb_and_grey(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), np.repeat(rgb[..., :1], 3, 2))


def test_a_picture_is_read_at_a_smaller_size_by_averaging(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    means = rgb.reshape(6, 2, 10, 2, 3).mean((1, 3))
    np.testing.assert_allclose(read_image(tmp_path / "a.png", (6, 10)), means, atol=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (12, 20)), rgb)
    deep = rgb[..., 0].astype(np.uint16) * 257
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    means = (deep / 257).reshape(6, 2, 10, 2).mean((1, 3))
    small = read_image(tmp_path / "deep.png", (6, 10))
    np.testing.assert_allclose(small, np.repeat(means[..., None], 3, 2), atol=1)


def test_alpha_is_dropped_not_composited(tmp_path, rgb):
    alpha = np.full((12, 20, 1), 10, np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)


def test_palette_image_gives_its_colours(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 10, 20, 5, 250, 9])
    image.putdata([1, 2, 0])
    image.save(tmp_path / "a.png", transparency=bytes([255, 3, 255]))
    assert read_image(tmp_path / "a.png").tolist() == [[[200, 10, 20], [5, 250, 9], [0, 0, 0]]]


def test_cmyk_jpeg_keeps_its_colour(tmp_path):
    Image.new("RGB", (16, 16), (200, 60, 30)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert image.shape == (16, 16, 3)
    assert np.abs(image - (200, 60, 30)).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_full_range(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[0, 1, 257, 128 * 257, 65535]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_orientation_is_applied(tmp_path, suffix):
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise: the upper half becomes the right half
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    image = read_image(path)
    assert image.shape == (32, 16, 3)
    assert image[:, 9:].min() > 240
    assert image[:, :7].max() < 15


@pytest.mark.parametrize("turn", [0, 1, 3])
def test_a_picture_that_is_turned_says_so(tmp_path, capsys, turn):
    """Else a mask of the picture as it is stored passes for one of the upright picture, of one size."""
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
    read_image(tmp_path / "a.jpg")
    said = f"note: {tmp_path / 'a.jpg'}: is turned upright, as its EXIF or XMP says: its mask is, or must be, of the "
    assert capsys.readouterr().err == (f"{said}upright picture\n" if turn == 3 else "")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("function", [read_image, read_mask, read_labels])
def test_truncated_file(tmp_path, rgb, suffix, function):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.tile(rgb, (8, 8, 1))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off" in refusal(function, path)


def test_damaged_png(tmp_path, rgb):
    path = tmp_path / "bad.png"
    Image.fromarray(rgb).save(path)
    content = bytearray(path.read_bytes())
    content[50:80] = bytes(30)
    path.write_bytes(content)
    assert "damaged" in refusal(read_image, path)


def test_damage_that_pillow_shows_is_found_by_the_checksums_of_a_png(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.pad(np.full((20, 10), 255, np.uint8), 10)).save(path)
    content = path.read_bytes()
    assert read_image(path).max() == 255
    first = content.index(b"IDAT") + 4
    for place in range(first, first + int.from_bytes(content[first - 8 : first - 4], "big") + 4):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        assert "damaged" in refusal(read_image, path)


READERS = [read_image, read_mask, read_labels, read_probability]


@pytest.mark.parametrize("function", READERS)
def test_unusable_files(tmp_path, monkeypatch, function):
    assert "no such file" in refusal(function, tmp_path / "absent.png")
    (tmp_path / "empty.png").touch()
    assert "empty" in refusal(function, tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("this is no picture at all")
    assert "known format" in refusal(function, tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder" in refusal(function, tmp_path / "folder.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "a pipe" in refusal(function, tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert "a device" in refusal(function, tmp_path / "zero.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        assert "cannot be opened" in refusal(function, tmp_path / "socket.png")
    Image.new("L", (8, 8)).save(tmp_path / "good.png")

    def forbidden(*_):  # the superuser may read anything, so file modes would not do
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert "permission" in refusal(function, tmp_path / "good.png")


@pytest.mark.parametrize("function", READERS)
def test_postscript_under_another_name_is_not_run(tmp_path, monkeypatch, function):
    ran, interpreter = tmp_path / "ran", tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\ntouch {ran}\n")
    interpreter.chmod(interpreter.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "skin.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    assert "known format" in refusal(function, tmp_path / "skin.png")
    assert not ran.exists()


def png(width, height, depth, kind, rows=b"", after=b""):
    """A PNG that Pillow does not write; kind 0 is grey, 2 in colour."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("function", READERS)
@pytest.mark.parametrize("size", [(13300, 13300), (65535, 65535)])
def test_too_many_pixels_are_refused_by_the_header_naming_the_limit(tmp_path, function, size):
    (tmp_path / "a.png").write_bytes(png(*size, 1, 0))
    message = refusal(function, tmp_path / "a.png")
    assert "100,000,000 (100 million) are not read" in message
    assert "damaged" not in message


def exif(orientation):
    chunk = b"eXIf" + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("function", READERS)
def test_a_late_orientation_turns_the_picture_in_every_function(tmp_path, function):
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, 0, b"\0\0\xff", after=exif(6)))
    assert function(tmp_path / "a.png").shape[:2] == (2, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("function", [read_image, read_mask])
def test_orientation_in_xmp_turns_the_picture_in_every_function(tmp_path, function, suffix):
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    path, image = tmp_path / f"a.{suffix}", Image.new("L", (32, 16), 255)
    if suffix == "jpg":
        image.save(path, xmp=xmp)
    else:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(path, pnginfo=info)
    assert function(path).shape[:2] == (32, 16)


@pytest.mark.parametrize(
    ("values", "read", "said"),
    [
        (np.uint16([[0, 700, 4095]]), [0, 44, 255], "12-bit values"),
        (np.uint16([[0, 1023]]), [0, 255], "10-bit values"),
        (np.int32([[0, 100, 255]]), [0, 100, 255], "8-bit values"),
        (np.int32([[0, 16383]]), [0, 255], "14-bit values"),
        (np.float32([[0.1, 0.5, 0.9]]), [25, 127, 229], "fractions, read as 0 to 1"),
        (np.float32([[1, 128, 254]]), [1, 128, 254], "fractions, read as 0 to 255"),
    ],
)
def test_wider_pixels_are_scaled_from_what_they_fill_and_that_is_said(tmp_path, capsys, values, read, said):
    path = tmp_path / f"{said}.tif"
    Image.fromarray(values).save(path)
    for _ in range(2):
        np.testing.assert_allclose(read_image(path)[0, :, 0], read, atol=0.5)
    err = capsys.readouterr().err
    assert f"note: {path}: " in err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("values", [np.int32([[-1, 5]]), np.int32([[0, 70000]]), np.float32([[0, np.nan]])])
def test_ranges_that_are_not_understood_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert "export it with 8 or 16 bits" in refusal(read_image, tmp_path / "a.tif")


def test_dark_colour_of_sixteen_bits_is_refused(tmp_path):
    bright, dark = tmp_path / "bright.png", tmp_path / "dark.png"
    for path, value in ((bright, 40000), (dark, 4095)):
        path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", value, value, value)))
    assert read_image(bright)[0, 0].tolist() == [156] * 3
    assert "16-bit colour" in refusal(read_image, dark)
    assert "16 bits a channel" in refusal(read_mask, bright)


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_several_pages_are_said(tmp_path, rgb, capsys, suffix):
    path = tmp_path / f"pages-{suffix}.{suffix}"
    pages = [Image.fromarray(np.roll(rgb, shift, 1)) for shift in (0, 3, 6)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert read_image(path).shape == rgb.shape
    assert f"note: {path}: has 3 pages; only the first is read" in capsys.readouterr().err


def test_what_pillow_warns_of_is_not_shown(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    monkeypatch.setattr(arrays, "MOST_PIXELS", 100)
    picture = Image.new("P", (6, 5))
    picture.save(tmp_path / "a.png", transparency=bytes([255, 3]))
    read_image(tmp_path / "a.png")
    assert list(recwarn) == []


def test_what_libtiff_writes_is_not_shown(tmp_path, rgb, capfd):
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).save(path, compression="tiff_deflate")
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    assert "damaged" in refusal(read_image, path)
    assert capfd.readouterr().err == ""


def test_what_pillow_logs_is_not_shown(tmp_path, rgb, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as outside of pytest, which has some
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).save(path, tiffinfo={277: 3})
    content = path.read_bytes()
    entry = struct.pack("<HHI", 277, 3, 1)  # samples per pixel
    assert entry in content
    path.write_bytes(content.replace(entry + b"\3\0", entry + b"\3\xfe"))
    refusal(read_image, path)
    assert capfd.readouterr().err == ""


def test_pillow_opens_files_in_one_place_alone():
    package = Path(pictures.__file__).parents[1]
    opening = [path for path in package.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert opening == [Path(pictures.__file__)]


def test_pictures_of_a_folder(tmp_path):
    for name in ("b.PNG", "a.tif", "c.jpeg", ".d.png", "e.txt", "f_superpixels.png", "g.webp"):
        (tmp_path / name).touch()
    (tmp_path / "h.png").mkdir()
    assert [path.name for path in list_folder(tmp_path) if is_picture(path)] == ["a.tif", "b.PNG", "c.jpeg", "g.webp"]


def test_what_is_in_memory_may_not_be_larger_than_a_file(monkeypatch):
    monkeypatch.setattr(arrays, "MOST_PIXELS", 30)
    for image in (Image.new("L", (6, 6)), np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6))):
        read = arrays.from_array if isinstance(image, np.ndarray) else arrays.from_pillow
        with pytest.raises(InputError, match=r"image: 6 x 6 pixels, and more than 30 .*make it smaller"):
            read(image)
        assert read(image.crop((0, 0, 6, 5)) if read is arrays.from_pillow else image[:5]).shape == (5, 6, 3)
