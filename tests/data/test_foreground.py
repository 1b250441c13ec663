import numpy as np

from medsegdiff.data.foreground import describe, shares, warnings

DISC = ((np.mgrid[:20, :20] - 10) ** 2).sum(axis=0) < 40


def test_shares_of_every_class():
    masks = np.zeros((2, 4, 5), np.uint8)
    masks[0, 0], masks[1, :2] = 1, 2
    np.testing.assert_allclose(shares(masks, 4), [[0.25, 0, 0], [0, 0.5, 0]])
    assert describe(masks, 3) == [
        "class 1: 12.5% of the pixels, 0.0% to 25.0% of a mask; 1 of 2 masks have none",
        "class 2: 25.0% of the pixels, 0.0% to 50.0% of a mask; 1 of 2 masks have none",
    ]


def test_what_is_unlikely_is_warned_of():
    discs = np.stack([DISC] * 3).astype(np.uint8)
    assert warnings(discs) == []
    assert "are they inverted?" in warnings(1 - discs)[0]
    assert "are they inverted?" in warnings(np.ones((2, 20, 20), np.uint8))[0]
    assert "all masks are empty" in warnings(0 * discs)[0]
    assert warnings(discs, num_classes=3) == ["class 2 occurs in no mask; check the number of classes"]


def test_one_lesion_that_fills_its_image_is_no_reason_to_warn():
    masks = np.stack([DISC, DISC, np.ones_like(DISC)]).astype(np.uint8)
    assert warnings(masks) == []
