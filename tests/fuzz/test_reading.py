"""Seeded damage and odd encodings of what users give: right, or one line; never a traceback or a wrong number.

MEDSEGDIFF_FUZZ=100 runs a hundred times as many cases, MEDSEGDIFF_FUZZ_FIRST=1000 others: the seeds from 1000 on.
"""

import io
import os
import random
import struct

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import read_yaml
from medsegdiff.config.run import RunConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.layouts.isic import CSV_NAMES, find
from medsegdiff.io.ensembles import read_ensembles
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import read_probability

TIMES, FIRST = int(os.environ.get("MEDSEGDIFF_FUZZ", "1")), int(os.environ.get("MEDSEGDIFF_FUZZ_FIRST", "0"))
RGB = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
DISC = np.add.outer((np.arange(40) - 20) ** 2, (np.arange(30) - 15) ** 2) < 100


def seeds(count):
    return pytest.mark.parametrize("seed", range(FIRST, FIRST + count * TIMES))


def attempt(function, *given):
    """What `function` returns, or None where it refuses in one line."""
    try:
        return function(*given)
    except InputError as error:
        assert "\n" not in str(error)
        return None


def damaged(content, rng):
    """Bytes with some of them changed, cut off, or put in."""
    content, place = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(("scatter", "cut", "number", "insert"))
    if kind == "scatter":
        for _ in range(rng.choice((1, 2, 4, 16))):
            content[rng.randrange(min(len(content), rng.choice((40, 200, 10**6))))] = rng.randrange(256)
    elif kind == "cut":
        del content[place:]
    elif kind == "number":
        content[place : place + 4] = struct.pack(">I", rng.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFF0000)))
    else:
        content[place:place] = rng.randbytes(rng.randrange(64))
    return bytes(content)


def pictures():
    """(suffix, bytes) of pictures in all formats."""
    plans = [("PNG", {}), ("JPEG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {}), ("PPM", {}), ("TIFF", {})]
    plans += [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]
    plans += [("JPEG", {"progressive": True})]
    plans += [(name, {"save_all": True, "append_images": [Image.fromarray(RGB)] * 2}) for name in ("TIFF", "GIF")]
    made = [(Image.fromarray(RGB), *plan) for plan in plans]
    made += [(Image.fromarray((DISC * 4000).astype(np.uint16)), name, {}) for name in ("PNG", "TIFF")]
    made += [(Image.fromarray(DISC.astype(np.float32)), "TIFF", {}), (Image.fromarray(DISC), "PNG", {})]
    for image, name, options in made:
        content = io.BytesIO()
        image.save(content, name, **options)
        yield name.lower(), content.getvalue()


PICTURES = list(pictures())


@seeds(150)
def test_damaged_pictures(tmp_path, capfd, seed):
    rng = random.Random(seed)
    suffix, content = rng.choice(PICTURES)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(damaged(content, rng))
    for function in (read_image, read_mask, read_labels, read_probability):
        attempt(function, path)
    assert all(line.startswith("note: ") for line in capfd.readouterr().err.splitlines())


@seeds(100)
def test_a_disc_however_it_is_stored(tmp_path, seed):
    rng = random.Random(seed)
    low, high = sorted(rng.sample((0, 0, 0, 1, 2, 100, 127, 128, 200, 254, 255, 1000, 4095, 65535), 2))
    dtype = rng.choice((np.uint8, np.uint16, np.int32, np.float32)) if high < 256 else np.uint16
    image = Image.fromarray(np.where(DISC, high, low).astype(dtype))
    if dtype == np.uint8:
        image = image.convert(rng.choice(("L", "P", "RGB", "RGBA", "LA", "CMYK")))
        if image.mode == "RGBA" and rng.random() < 0.5:
            image.putalpha(Image.fromarray(DISC * np.uint8(255)))
        if image.mode == "RGB" and rng.random() < 0.5:
            kept = rng.sample(range(3), rng.choice((1, 2)))
            bands = image.split()
            image = Image.merge("RGB", [bands[n] if n in kept else bands[n].point(lambda _: 0) for n in range(3)])
    suffixes = {"CMYK": ("tif", "jpg"), "F": ("tif",), "I": ("tif",), "LA": ("png", "tif"), "RGBA": ("png", "tif")}
    suffix = rng.choice(suffixes.get(image.mode, ("png", "tif")))
    if image.mode == "L":
        suffix = rng.choice(("png", "tif", "bmp", "gif", "jpg"))
    image.save(tmp_path / f"a.{suffix}")
    read = attempt(read_mask, tmp_path / f"a.{suffix}")
    if low != high and suffix != "jpg" and read is not None:
        np.testing.assert_array_equal(read > 0.5, DISC)
    elif read is not None and suffix == "jpg" and (low, high) in ((0, 255), (1, 255), (0, 254)):
        assert abs(read.sum() / DISC.sum() - 1) < 0.02


VALUES = (
    0,
    -1,
    10**9,
    10**300,
    1.5,
    "1e400",
    ".nan",
    ".inf",
    "''",
    "text",
    "[1]",
    "{a: 1}",
    "null",
    "true",
    "1,2",
    "*a",
)


@seeds(100)
def test_odd_options(tmp_path, seed):
    rng = random.Random(seed)
    names = rng.sample(sorted(RunConfig().flat()), 3)
    text = "\n".join(f"{name}: {rng.choice(VALUES)}" for name in names) + "\n"
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode() if rng.random() < 0.7 else damaged(text.encode(), rng))
    options = attempt(read_yaml, path)
    if isinstance(options, dict):
        attempt(RunConfig.from_flat, options)


@seeds(60)
def test_odd_tables(tmp_path, seed):
    rng = random.Random(seed)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for name, text in (
        (CSV_NAMES["train"], ",img,seg\n0,a.png,a.png\n1,.\\b.png,a.png\n"),
        ("images.csv", "id,members,empty,agreement\na,5,0,0.5\nb,5,1,\n"),
    ):
        (tmp_path / name).write_bytes(damaged(text.encode(), rng))
    attempt(find, tmp_path, "train")
    attempt(read_ensembles, tmp_path)


@seeds(40)
def test_a_damaged_cache_is_never_used(tmp_path, seed):
    rng = random.Random(seed)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(DISC).save(tmp_path / "mask.png")
    cases = [Case("a", (tmp_path / "a.png",), tmp_path / "mask.png")]
    first = prepare(cases, 16, tmp_path / "cache", progress=False)
    expected = first.image(0), first.mask(0), first.original_sizes
    (path,) = (tmp_path / "cache/cases").glob("*/*.safetensors")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damaged(content, rng))
    again = prepare(cases, 16, tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(again.image(0), expected[0])
    np.testing.assert_array_equal(again.mask(0), expected[1])
    assert again.original_sizes == expected[2]
    assert path.read_bytes() == content
