import io

import numpy as np
import pytest
from PIL import Image

from medsegdiff.io import png
from medsegdiff.io.png import check_pixels, write_png

SHAPES = [(1, 1), (1, 9), (9, 1), (23, 17)]


@pytest.mark.parametrize("strip", [1, 60, 1 << 22], ids=["rows", "strips", "whole"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["grey", "deep", "colour", "palette"])
def test_others_read_the_pixels_that_were_written(tmp_path, monkeypatch, kind, shape, strip):
    monkeypatch.setattr(png, "_STRIP", strip)
    rng, path = np.random.default_rng(0), tmp_path / "a.png"
    pixels = rng.integers(0, 65536, (*shape, 3), np.uint16)
    pixels = pixels[..., 0] if kind == "deep" else pixels.astype(np.uint8)
    pixels = pixels if kind in ("deep", "colour") else pixels[..., 0]
    pixels = pixels % 3 if kind == "palette" else pixels
    pixels = pixels[:, ::-1]  # not as it lies in memory
    palette = [0, 0, 0, 200, 10, 20, 5, 250, 9]
    write_png(path, pixels, palette if kind == "palette" else ())
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == {"grey": "L", "deep": "I;16", "colour": "RGB", "palette": "P"}[kind]
        assert kind != "palette" or image.getpalette()[:9] == palette
        np.testing.assert_array_equal(np.asarray(image), pixels)
    with path.open("rb") as file:
        check_pixels(file)


def test_smooth_maps_photographs_and_masks_take_as_few_bytes_as_by_pillow(tmp_path):
    down, right = np.mgrid[:300, :400]
    smooth = 1 / (1 + np.exp((np.hypot(down - 150, right - 200) - 80) / 9))
    noise = np.random.default_rng(0).normal(0, 3, (300, 400, 3))
    photo = 40 + 160 * smooth[..., None] * (1, 0.8, 0.7) + noise
    for pixels in (np.rint(smooth * 65535).astype(np.uint16), photo.astype(np.uint8), (smooth > 0.5).astype(np.uint8)):
        usual = io.BytesIO()
        Image.fromarray(pixels).save(usual, "PNG", compress_level=2)
        write_png(tmp_path / "a.png", pixels)
        assert (tmp_path / "a.png").stat().st_size < 1.05 * len(usual.getvalue())
