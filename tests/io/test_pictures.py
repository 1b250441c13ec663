from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.io.pictures import image_size, read_image, read_labels, read_mask

ORIENTATION = 0x0112


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


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
    # The lowest label must not become background.
    assert read_mask(path)[0].tolist() == [0, 1, 1, 128, 255]


def test_wider_than_sixteen_bit_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "a.tif")
    assert "16-bit" in refusal(read_image, tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "b.tif")
    assert "16-bit" in refusal(read_mask, tmp_path / "b.tif")


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
    assert image_size(path) == (32, 16)


def test_masks_of_every_mode(tmp_path):
    labels = np.array([[0, 1, 2]], np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])  # the colours count, not the indices
    palette.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png").tolist() == [[255, 0, 9]]
    disc = np.zeros((9, 9), np.uint8)
    for size in (2, 7):  # a quantised mask's most frequent colour is index 0, be it black or white
        disc[:size] = 255
        Image.fromarray(disc).quantize(2).save(tmp_path / "quantised.png")
        assert (read_mask(tmp_path / "quantised.png") == disc).all()
    Image.fromarray(labels > 0).save(tmp_path / "bit.png")
    assert read_mask(tmp_path / "bit.png").tolist() == [[0, 255, 255]]
    Image.fromarray(labels * 100).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 100, 200]]
    Image.fromarray(np.repeat(labels[..., None] * 100, 3, 2)).save(tmp_path / "rgb.png")
    assert read_mask(tmp_path / "rgb.png").tolist() == [[0, 100, 200]]


def test_labels_are_the_stored_values(tmp_path):
    labels = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)
    grey = Image.fromarray(labels)
    grey.save(tmp_path / "grey.png")
    grey.save(tmp_path / "grey.tif")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "deep.tif")
    palette = grey.copy()
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9, 40, 80, 2])  # whatever the colours are
    palette.save(tmp_path / "palette.png")  # 2 bits a pixel
    palette.save(tmp_path / "transparent.png", transparency=0)
    palette.save(tmp_path / "palette.tif")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 7
    for path in paths:
        read = read_labels(path)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, labels, err_msg=path.name)
    Image.fromarray(labels > 0).save(tmp_path / "bit.png")
    assert read_labels(tmp_path / "bit.png").tolist() == [[0, 1, 1], [1, 0, 1]]
    Image.fromarray(np.array([[255, 254]], np.uint8)).save(tmp_path / "high.png")
    assert read_labels(tmp_path / "high.png").tolist() == [[255, 254]]


@pytest.mark.parametrize(("bits", "row"), [(2, bytes([0b00_01_10_11])), (4, bytes([0x01, 0x23]))])
def test_labels_of_few_bits_are_not_stretched(tmp_path, bits, row):
    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)  # grey, which Pillow itself never writes so
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]
    assert read_mask(tmp_path / "a.png").max() > 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_are_turned_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / f"a.{suffix}"
    for values in (np.array([[0, 1], [2, 3]], np.uint8), np.array([[0, 1], [2, 3]], np.uint16)):
        Image.fromarray(values).save(path, exif=exif)
        assert read_labels(path).tolist() == [[2, 0], [3, 1]]


def test_what_holds_no_labels_is_refused(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "colour.png")
    Image.fromarray(rgb).convert("LA").save(tmp_path / "alpha.png")
    for name, mode in (("colour.png", "RGB"), ("alpha.png", "LA")):
        message = refusal(read_labels, tmp_path / name)
        assert f"in colour or with alpha ({mode})" in message
        assert "grey or palette PNG" in message
    Image.fromarray(np.array([[0, 256]], np.uint16)).save(tmp_path / "deep.png")
    message = refusal(read_labels, tmp_path / "deep.png")
    assert "the value 256" in message
    assert "grey or palette PNG" in message
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    assert "16-bit" in refusal(read_labels, tmp_path / "float.tif")


def test_size_needs_the_header_only(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    head = tmp_path / "head.png"
    head.write_bytes((tmp_path / "a.png").read_bytes()[:60])
    assert image_size(head) == (12, 20)


@pytest.mark.parametrize("function", [read_image, read_mask, read_labels, image_size])
def test_unusable_files(tmp_path, monkeypatch, function):
    assert "no such file" in refusal(function, tmp_path / "absent.png")
    (tmp_path / "empty.png").touch()
    assert "empty" in refusal(function, tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("this is no picture at all")
    assert "known format" in refusal(function, tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder" in refusal(function, tmp_path / "folder.png")
    Image.new("L", (8, 8)).save(tmp_path / "good.png")

    def forbidden(*_):  # the superuser may read anything, so file modes would not do
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert "permission" in refusal(function, tmp_path / "good.png")


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


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "too many pixels" in refusal(read_image, tmp_path / "a.png")
