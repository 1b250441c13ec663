import numpy as np

from medsegdiff.masks.decision import decide


def test_the_class_is_the_likeliest_and_background_takes_the_rest():
    assert decide(np.float32([[[0.5, 0.51]]])).tolist() == [[0, 1]]
    several = np.float32([[[0.3, 0.4, 0.9, 0.0]], [[0.2, 0.35, 0.9, 0.7]]])
    assert decide(several).tolist() == [[0, 1, 1, 2]]
