import numpy as np

from medsegdiff.data.foreground import describe, warnings

FEW = np.array([False, False, False])


def test_each_class_is_described():
    assert describe(np.array([[0.25, 0], [0, 0.5]])) == [
        "class 1: 12.5% of the pixels, 0.0% to 25.0% of a mask; 1 of 2 masks have none",
        "class 2: 25.0% of the pixels, 0.0% to 50.0% of a mask; 1 of 2 masks have none",
    ]
    assert describe(np.array([[0.25], [0.75]]))[0].startswith("foreground: 50.0% of the pixels")


def test_what_is_unlikely_is_warned_of():
    discs = np.full((3, 1), 0.3)
    assert warnings(discs, FEW) == []
    assert "are they inverted?" in warnings(discs, ~FEW)[0]
    assert "are they inverted?" in warnings(np.full((3, 1), 0.9), FEW)[0]
    assert "all masks are empty" in warnings(0 * discs, FEW)[0]
    absent = np.concatenate([discs, 0 * discs], axis=1)
    assert warnings(absent, FEW) == [
        "class 2 occurs in no mask, and counts in no mean; check the number of classes, and the labels"
    ]


def test_one_lesion_that_fills_its_image_is_no_reason_to_warn():
    assert warnings(np.array([[0.3], [0.3], [1.0]]), np.array([False, False, True])) == []
