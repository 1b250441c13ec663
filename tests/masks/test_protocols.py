import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.masks.metrics import published_iou_dice
from medsegdiff.masks.protocols import PROTOCOLS, make_protocol
from medsegdiff.masks.resizing import resize_probability


def ellipse(height, width):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 0.45 * height) / (0.3 * height)) ** 2 + ((columns - 0.6 * width) / (0.25 * width)) ** 2


@pytest.fixture(params=[(150, 202), (768, 1024), (40, 50)], ids=str)
def pair(request):
    """A probability from 0.2 to 0.62, and the ground truth."""
    distance = ellipse(*request.param)
    probability = (0.2 + 0.42 / (1 + np.exp(4 * (distance - 1.1)))).astype(np.float32)
    return probability, (distance < 1).astype(np.float32)


def four_nearest(values, size):
    """Bilinear interpolation at the centres of the pixels of a square, float64; no antialiasing."""
    for axis in (0, 1):
        count = values.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.minimum(at.astype(int), count - 2)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        values = (1 - share) * values.take(low, axis) + share * values.take(low + 1, axis)
    return values


def scores(prediction, truth):
    """IoU and Dice averaged over the published thresholds, term by term."""
    iou, dice = [], []
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        p, t = prediction > threshold, truth > threshold
        iou.append(((p & t).sum() + 1e-6) / ((p | t).sum() + 1e-6))
        dice.append((2 * (p & t).sum() + 1e-4) / (p.sum() + t.sum() + 1e-4))
    return np.mean(iou), np.mean(dice)


def found(protocol, probability, truth):
    return protocol.iou_dice(probability, protocol.target(truth))


def test_ours_takes_probabilities_as_they_are(pair):
    square = (256, 256)
    expected = published_iou_dice(*(resize_probability(values, square) for values in pair))
    assert found(make_protocol(), *pair) == expected


def test_the_original_divides_by_the_maximum(pair):
    probability, truth = (resize_probability(values, (256, 256)) for values in pair)
    assert found(make_protocol("original"), *pair) == pytest.approx(scores(probability / probability.max(), truth))


def test_the_jittor_project_stretches_at_64_pixels(pair):
    probability = resize_probability(pair[0], (64, 64)).astype(np.float64)
    stretched = (probability - probability.min()) / (probability.max() - probability.min())
    expected = scores(stretched, four_nearest(pair[1].astype(np.float64), 64))
    assert found(make_protocol("jittor"), *pair) == pytest.approx(expected, abs=1e-9)
    assert np.subtract(expected, found(make_protocol("ours", 64), *pair)).min() > 0.1


def test_the_ground_truth_of_the_jittor_project_is_not_antialiased(pair):
    soft = np.random.default_rng(0).random(pair[1].shape, np.float32)
    np.testing.assert_allclose(make_protocol("jittor").target(soft), four_nearest(soft, 64), atol=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_predictions_without_contrast_are_finite(name):
    protocol, full, empty = make_protocol(name), np.ones((70, 70), np.float32), np.zeros((70, 70), np.float32)
    assert found(protocol, empty, empty) == (1, 1)
    assert found(protocol, empty, full) == pytest.approx((0, 0), abs=1e-4)
    assert found(protocol, full, full) == pytest.approx((0, 0) if name == "jittor" else (1, 1), abs=1e-4)


def test_the_convention_says_what_is_done():
    assert make_protocol().convention == (
        "probability and ground truth bilinear to 256 x 256, both cut at 0.1, 0.3, 0.5, 0.7, 0.9, "
        "scores averaged over the cuts"
    )
    assert "bilinear to 64 x 64 and stretched" in make_protocol("jittor").convention
    assert "bilinear to 128 x 128, the former over its maximum" in make_protocol("original", 128).convention


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("ours", 0), "protocol_size 0: must be at least 1"),
        (("ours", 20_000), "protocol_size 20000: must be at most 4096"),
    ],
)
def test_what_there_is_not_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        make_protocol(*given)
