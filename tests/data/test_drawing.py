from __future__ import annotations

import hashlib

import numpy as np
import pytest

from medsegdiff.base.randomness import generator
from medsegdiff.data.drawing import draw


def test_drawings_are_lesions_darker_than_their_skin():
    darker = 0
    for index in range(20):
        image, mask = draw(generator(0, index), 96)
        assert image.shape == (96, 96, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert 0.02 < (mask > 0).mean() < 0.7
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        skin = (mask == 0) & (np.hypot(x, y) < 0.9)
        darker += image[mask > 0].mean() < image[skin].mean() - 15
    assert darker >= 18


@pytest.mark.parametrize(
    ("index", "mask_digest", "mean"),
    [
        (9_000_000, "f3b60f94bea48748", (206.095, 159.173, 131.261)),
        (9_000_001, "0fcd257fc2dd7e6d", (189.727, 148.808, 119.604)),
        (9_000_002, "5e559b5ee9fc2d09", (209.498, 168.454, 149.451)),
    ],
)
def test_two_classes_give_the_pictures_of_version_1(index, mask_digest, mean):
    image, mask = draw(generator(0, "phantom", index), 48)
    assert hashlib.sha256(mask.tobytes()).hexdigest()[:16] == mask_digest
    np.testing.assert_allclose(image.mean((0, 1)), mean, atol=0.01)


def test_three_classes_are_skin_lesion_and_its_darker_core():
    for index in range(20):
        image, labels = draw(generator(0, index), 96, num_classes=3)
        assert image.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1, 2}
        assert 0.05 < (labels == 2).sum() / (labels > 0).sum() < 0.75
        assert image[labels == 2].mean() < image[labels == 1].mean() - 15
        np.testing.assert_array_equal(labels > 0, draw(generator(0, index), 96)[1] > 0)


def test_a_drawing_depends_on_its_stream_only():
    first, again, other = (draw(generator(seed, "x"), 64) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()
