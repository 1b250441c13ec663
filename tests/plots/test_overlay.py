import os
import subprocess
import sys

import numpy as np

from medsegdiff.plots.overlay import overlay
from medsegdiff.plots.palette import PREDICTION_COLOUR, TRUTH_COLOUR


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


def test_a_home_that_cannot_be_written_is_no_reason_for_words():
    code = "from medsegdiff.plots import overlay; import matplotlib.figure"
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
