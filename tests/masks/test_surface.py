"""Surface metrics beside plain versions that share no code with them."""

import itertools
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from scipy import ndimage

from medsegdiff.masks.surface import Surface, surface


def surface_points(mask):
    """Coordinates of the pixels with a neighbour across a side outside the mask, found one by one."""
    padded = np.pad(mask, 1)
    points = []
    for point in np.argwhere(padded):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = point.copy()
            neighbour[axis] += step
            if not padded[tuple(neighbour)]:
                points.append(point - 1)
                break
    return np.array(points, dtype=float)


def lesions(mask):
    """The regions of a mask as sets of pixels, grown pixel by pixel."""
    left, found = {tuple(map(int, point)) for point in np.argwhere(mask)}, []
    while left:
        region = [left.pop()]
        for point in region:
            for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(p + s for p, s in zip(point, step))
                if neighbour in left:
                    left.remove(neighbour)
                    region.append(neighbour)
        found.append(set(region))
    return found


def plain(prediction, target, spacing, tolerance):
    a, b = surface_points(prediction) * spacing, surface_points(target) * spacing
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    there, back = np.sort(distances.min(axis=1)), np.sort(distances.min(axis=0))

    def percentile(values):
        position = 0.95 * (len(values) - 1)
        low = int(position)
        high = min(low + 1, len(values) - 1)
        return values[low] + (position - low) * (values[high] - values[low])

    predicted, true = lesions(prediction), lesions(target)
    found = sum(any(lesion & other for other in predicted) for lesion in true)
    false = sum(not any(lesion & other for other in true) for lesion in predicted)
    return Surface(
        max(percentile(there), percentile(back)),
        (there.sum() + back.sum()) / (len(there) + len(back)),
        ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back)),
        2 * found / (2 * found + false + len(true) - found),
        abs(int(prediction.sum()) - int(target.sum())) * np.prod(spacing),
    )


def blobs(shape, seed, share):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("spacing", [None, (0.7, 2.5, 1.1)])
@pytest.mark.parametrize("shape", [(40, 31), (12, 17, 14)])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_plain_version(seed, shape, spacing):
    spacing = spacing and spacing[: len(shape)]
    prediction, target = blobs(shape, seed, 0.2), blobs(shape, seed + 100, 0.05 + 0.05 * seed)
    expected = plain(prediction, target, np.ones(len(shape)) if spacing is None else spacing, 1.5)
    np.testing.assert_allclose(surface(prediction, target, spacing, 1.5), expected, rtol=0, atol=1e-9)
    assert 0 < expected.nsd < 1


def test_agrees_with_distance_transforms():
    prediction, target = blobs((60, 50), 1, 0.2), blobs((60, 50), 2, 0.3)
    a, b = (mask & ~ndimage.binary_erosion(mask) for mask in (prediction, target))
    there = ndimage.distance_transform_edt(~b, sampling=(0.5, 2))[a]
    back = ndimage.distance_transform_edt(~a, sampling=(0.5, 2))[b]
    found = surface(prediction, target, (0.5, 2), 1)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
    assert found.assd == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-9)


def test_a_shifted_square_by_hand():
    target = np.zeros((20, 20), bool)
    target[5:9, 5:9] = True
    found = surface(np.roll(target, 3, axis=1), target, spacing=(1, 2))
    # Of a square of 4 the last column is 6 away; all is moved by 3 pixels of 2 mm.
    assert found.hd95 == 6
    assert found.volume_difference == 0
    assert found.lesion_f1 == 1
    assert surface(target, target) == (0, 0, 1, 1, 0)


def test_lesions_are_found_missed_and_invented():
    target = np.zeros((30, 30), bool)
    target[2:5, 2:5] = target[10:13, 10:13] = target[20:23, 20:23] = True
    prediction = np.zeros_like(target)
    prediction[4, 4] = True  # touches the first
    prediction[10:13, 10:13] = True
    prediction[2:4, 20:22] = True  # touches none
    assert surface(prediction, target).lesion_f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    diagonal = np.zeros_like(target)
    diagonal[[3, 4], [3, 4]] = True  # one lesion: its pixels touch at a corner
    assert surface(diagonal, diagonal).lesion_f1 == 1


@pytest.mark.parametrize(("empty", "expected"), [("one", (0, 0, 1, 1, 0)), ("zero", (50, 50, 0, 0, 0)), ("skip", None)])
def test_two_empty_masks_count_as_asked(empty, expected):
    nothing = np.zeros((30, 20), bool)
    assert surface(nothing, nothing, (1, 2), empty=empty) == expected


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_is_the_worst_whatever_is_asked(empty, swap):
    masks = [np.zeros((30, 40), bool), np.zeros((30, 40), bool)]
    masks[1][3:5, 3:6] = True
    assert surface(*masks[:: -1 if swap else 1], empty=empty) == (50, 50, 0, 0, 6)


@pytest.mark.parametrize(
    ("prediction", "target", "spacing"),
    [
        (np.zeros((2, 2), bool), np.zeros((2, 3), bool), None),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), None),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1,)),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1, 0)),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1, np.nan)),
    ],
)
def test_what_makes_no_sense_is_refused(prediction, target, spacing):
    with pytest.raises(ValueError, match=r"must be|must"):
        surface(prediction, target, spacing)


@pytest.mark.parametrize("step", [0.1, 0.2, float(np.float32(0.2)), 0.7, float(np.float32(1 / 3))])
@pytest.mark.parametrize("place", range(5))
def test_what_is_as_far_as_the_tolerance_is_within_it(step, place):
    """Wherever it lies: neither a product nor a difference of such numbers is exact."""
    masks = np.zeros((2, 40, 40), bool)
    masks[0, place : place + 9, 3:12] = masks[1, place + 3 : place + 12, 3:12] = True
    found = surface(*masks, (step, step), tolerance=3 * step)
    assert found.nsd == 1
    assert surface(*masks, (step, step), tolerance=2.99 * step).nsd < 1


def test_outlines_are_compared_where_subnormal_numbers_are_zero():
    """As in a process that has segmented before; the search tree splits at a number's next neighbour."""
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:35, 5:40] = masks[1, 15:25, 20:55] = True
    masks[0] &= ~masks[1]
    code = (
        "import sys, numpy as np\n"
        "from medsegdiff.masks.surface import surface\n"
        "from medsegdiff.runtime.backend import subnormals_are_zero\n"
        "masks = np.load(sys.argv[1])\n"
        "subnormals_are_zero()\n"
        "print(*surface(*masks))"
    )
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:  # in a process of its own, which would end by a signal
        np.save(file, masks)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-c", code, file.name], capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx(list(surface(*masks)))
