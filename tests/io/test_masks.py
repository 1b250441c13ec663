from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.io.masks import find_masks, read_labels, read_mask
from tests.io.test_pictures import ORIENTATION, refusal

Y, X = np.mgrid[:40, :60]
DISC = ((Y - 20) / 12) ** 2 + ((X - 30) / 20) ** 2 <= 1


def saved(tmp_path, values, name="a.png", mode=None):
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("high", [1, 2, 100, 127, 200, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_two_values_are_a_mask_whatever_they_are(tmp_path, high, dtype):
    for low in {0, high // 2}:
        path = saved(tmp_path, np.where(DISC, high, low).astype(dtype), "a.tif")
        read = read_mask(path)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, DISC)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, np.where(DISC, 65535, 0).astype(np.uint16))), DISC)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, DISC.astype(np.float32), "b.tif")), DISC)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_a_mask_in_every_mode(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    np.testing.assert_array_equal(read_mask(saved(tmp_path, DISC * np.uint8(255), name, mode)), DISC)


def test_colours_are_what_a_person_sees(tmp_path):
    red = np.zeros((*DISC.shape, 3), np.uint8)
    red[DISC, 0] = 255
    np.testing.assert_array_equal(read_mask(saved(tmp_path, red)), DISC)
    red[0, 0] = (0, 255, 0)
    assert "in colour, other than black and one more" in refusal(read_mask, saved(tmp_path, red))
    palette = Image.fromarray(DISC.astype(np.uint8))
    palette.putpalette([255, 255, 255, 0, 0, 0])  # the colours count, not the indices
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), ~DISC)
    several = Image.fromarray(DISC.astype(np.uint8) + (X > 30))
    several.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    several.save(tmp_path / "several.png")
    assert "holds several classes; give num_classes" in refusal(read_mask, tmp_path / "several.png")


@pytest.mark.parametrize(("colour", "elsewhere"), [(255, 255), (0, 0), (255, 0)])
def test_a_shape_in_alpha(tmp_path, colour, elsewhere):
    pixels = np.zeros((*DISC.shape, 4), np.uint8)
    pixels[..., :3] = np.where(DISC, colour, elsewhere)[..., None]
    pixels[..., 3] = DISC * 255
    np.testing.assert_array_equal(read_mask(saved(tmp_path, pixels)), DISC)


def test_alpha_that_contradicts_the_colours_is_refused(tmp_path):
    pixels = np.zeros((*DISC.shape, 4), np.uint8)
    pixels[..., :3] = np.where(DISC, 0, 255)[..., None]  # black where it is seen, white where it is not
    pixels[..., 3] = DISC * 255
    assert "transparency disagree" in refusal(read_mask, saved(tmp_path, pixels))
    pixels[..., 3] = 0
    assert "transparency disagree" in refusal(read_mask, saved(tmp_path, pixels))


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_cut_at_one_half(tmp_path, quality, mode):
    Image.fromarray(DISC * np.uint8(255)).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    read = read_mask(tmp_path / "a.jpg")
    assert set(np.unique(read)) == {0, 1}
    assert abs(read.sum() / DISC.sum() - 1) < 0.01
    Image.fromarray(DISC * np.uint8(2)).save(tmp_path / "black.jpg", quality=quality)
    assert not read_mask(tmp_path / "black.jpg").any()
    assert "far from white" in refusal(read_mask, saved(tmp_path, DISC * np.uint8(100), "b.jpg"))


def test_grey_levels_are_shares_of_the_full_range(tmp_path, capsys):
    levels = np.where(DISC, 255, 0)
    levels[:3] = 51
    for values, name in ((levels.astype(np.uint8), "a.png"), ((levels * 257).astype(np.uint16), "b.png")):
        path = saved(tmp_path, values, name)
        np.testing.assert_allclose(read_mask(path), levels / 255, rtol=1e-6)
        assert f"note: {path}: holds the levels 0, " in capsys.readouterr().err


@pytest.mark.parametrize("values", [[[0, 1, 2, 0]], [[0, 0, 40, 127]]])
def test_class_indices_are_not_taken_for_grey_levels(tmp_path, values):
    message = refusal(read_mask, saved(tmp_path, np.uint8(values)))
    assert f"its highest grey level is {np.max(values)}; " in message
    assert "num_classes" in message


def test_masks_that_are_photos_are_refused(tmp_path, rgb):
    assert "in colour" in refusal(read_mask, saved(tmp_path, rgb))
    assert "in colour" in refusal(read_mask, saved(tmp_path, rgb, "a.jpg"))
    grey = np.random.default_rng(0).integers(40, 200, DISC.shape).astype(np.uint8)
    for name in ("b.png", "b.jpg"):
        assert "a picture, or several classes, not a mask" in refusal(read_mask, saved(tmp_path, grey, name))


def test_one_value(tmp_path):
    for value, share in ((0, 0), (1, 1), (255, 1)):
        assert (read_mask(saved(tmp_path, np.full((5, 4), value, np.uint8))) == share).all()
    assert "the value 90 alone" in refusal(read_mask, saved(tmp_path, np.full((5, 4), 90, np.uint8)))
    for values in (np.float32([[0, np.nan]]), np.int32([[-1, 1]])):
        assert "below 0 or not a number" in refusal(read_mask, saved(tmp_path, values, "a.tif"))


def test_a_mask_whose_name_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\\udcb2\.png': its name is not UTF-8"):
        find_masks([tmp_path / "\udcb2.png"])


def test_finding_masks(tmp_path, capsys):
    paths = [tmp_path / name for name in ("a.jpg", "a.PNG", "b.1.tif", "c.jpeg")]
    assert find_masks(paths) == {"a": paths[1], "b.1": paths[2], "c": paths[3]}
    with pytest.raises(InputError, match=r"a\.tif: a second mask for a beside a\.PNG; remove one"):
        find_masks([*paths, tmp_path / "a.tif"])
    named = [tmp_path / name for name in ("ISIC_2_Segmentation.png", "ISIC_1_segmentation.BMP")]
    assert list(find_masks(named)) == ["ISIC_1", "ISIC_2"]
    assert capsys.readouterr().err == ""
    assert list(find_masks([*paths, *named])) == ["ISIC_1", "ISIC_2"]
    assert list(find_masks([tmp_path / "u\u0308.png"])) == ["\u00fc"]
    assert "only files named _Segmentation are taken for masks, not a.jpg" in capsys.readouterr().err


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
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.jpg")
    assert "a JPEG" in refusal(read_labels, tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0, 4, True), (1, 2, True), (1, 255, True), (0, 1, False), (0, 255, False)]
)
def test_two_values_that_may_be_classes_are_said(tmp_path, capsys, low, high, said):
    path = saved(tmp_path, np.where(DISC, high, low).astype(np.uint8), f"{low}-{high}.png")
    np.testing.assert_array_equal(read_mask(path), DISC)
    line = f"note: {path}: holds the values {low} and {high} alone; {high} is foreground\n"
    assert capsys.readouterr().err == (line if said else "")


def test_a_jpeg_of_0_and_1_is_said_to_be_read_as_empty(tmp_path, capsys):
    for name, level, said in (("a.jpg", 9, True), ("b.jpg", 0, False)):
        path = saved(tmp_path, DISC * np.uint8(level), name)
        assert not read_mask(path).any()
        assert ("read as empty; a mask of 0 and 1 keep as PNG" in capsys.readouterr().err) == said
