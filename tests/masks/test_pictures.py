import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medsegdiff.masks.pictures import MAX_STD, PREDICTION_COLOUR, TRUTH_COLOUR, Row, overlay, overview


@pytest.fixture
def row():
    y, x = np.mgrid[:60, :80]
    disc = ((y - 30) ** 2 + (x - 40) ** 2 < 15**2).astype(np.float32)
    return Row(
        id="ISIC_1",
        image=np.full((60, 80, 3), 100, np.uint8),
        probability=disc,
        truth=np.roll(disc, 12, axis=1) > 0,
        members=[disc, 1 - disc],
        std=disc * MAX_STD,
        dice=0.5,
    )


def near(picture, y, x, colour):
    return np.abs(picture[y, x].astype(int) - colour).max() < 40


def test_overlay_draws_both_outlines_and_nothing_else(row):
    picture = overlay(row.image, row.probability, row.truth)
    assert (picture.dtype, picture.shape) == (np.uint8, row.image.shape)
    assert near(picture, 30, 40 - 14, PREDICTION_COLOUR)
    assert near(picture, 30, 40 + 12 + 14, TRUTH_COLOUR)
    assert picture[30, 46].tolist() == picture[2, 2].tolist() == [100, 100, 100]
    assert (row.image == 100).all()


def test_overlay_without_a_mask_is_the_image(row):
    nothing = np.zeros_like(row.probability)
    np.testing.assert_array_equal(overlay(row.image, nothing, nothing > 0), row.image)


def test_overlay_closes_the_outline_at_the_border(row):
    picture = overlay(row.image, np.ones_like(row.probability))
    assert all(near(picture, y, x, PREDICTION_COLOUR) for y, x in ((0, 40), (59, 40), (30, 0), (30, 79)))
    assert picture[30, 40].tolist() == [100, 100, 100]


def test_one_pixel_is_still_seen(row):
    speck = np.zeros_like(row.probability)
    speck[20, 20] = 0.9
    assert (overlay(row.image, speck) != row.image).any(axis=2).sum() >= 5


def test_overlay_puts_the_uncertainty_beside(row):
    picture = overlay(row.image, row.probability, std=row.std)
    heat = picture[:, -80:]
    assert (picture[:, 80:-80] == 255).all()
    assert picture.shape[0] == 60
    assert heat[2, 2].sum() < 20  # no uncertainty: black
    assert heat[30, 40].sum() > 550  # the largest: light yellow


def test_overview_is_written_whole(tmp_path, row):
    bare = Row("bare", row.image, row.probability)
    overview([row, bare], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        # Six columns of 1.5 inches at 300 dots: image, truth, two samples, mean, uncertainty.
        assert picture.format == "PNG"
        assert picture.width == round((6 * 1.5 + 0.3) * 300)
    overview([bare], tmp_path / "narrow.png")
    with Image.open(tmp_path / "narrow.png") as picture:
        assert picture.width == round((2 * 1.5 + 0.3) * 300)
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "narrow.png"}


def test_overview_follows_the_suffix(tmp_path, row):
    overview([row], tmp_path / "figure.pdf", max_members=0)
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_overview_needs_a_row(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        overview([], tmp_path / "figure.png")


def test_importing_does_not_load_matplotlib():
    code = "import sys, medsegdiff.masks.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
