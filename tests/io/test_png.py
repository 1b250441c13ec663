import numpy as np
import pytest
from PIL import Image

from medsegdiff.io.png import check_pixels, write_png

SHAPES = [(1, 1), (1, 9), (9, 1), (23, 17)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["grey", "deep", "colour", "palette"])
def test_others_read_the_pixels_that_were_written(tmp_path, kind, shape):
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
