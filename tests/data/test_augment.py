from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.data.augment import augment
from medsegdiff.runtime.randomness import generator


@pytest.fixture
def sample():
    rng = np.random.default_rng(1)
    return rng.random((3, 8, 8), np.float32), (rng.random((2, 8, 8)) > 0.5).astype(np.float32)


def test_same_stream_same_variant_and_arguments_untouched(sample):
    image, mask = sample
    before = image.copy(), mask.copy()
    first, second = (augment(image, mask, generator(0, "augment", 5)) for _ in range(2))
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32
        assert one.flags.c_contiguous
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_nothing_chosen_changes_nothing(sample):
    image, mask = augment(*sample, generator(0), flips=False, rotations=False, colour=0)
    np.testing.assert_array_equal(image, sample[0])
    np.testing.assert_array_equal(mask, sample[1])


@pytest.mark.parametrize(("flips", "rotations", "variants"), [(True, False, 4), (False, True, 4), (True, True, 8)])
def test_all_symmetries_occur_and_the_mask_follows(flips, rotations, variants):
    grid = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16
    seen = set()
    for step in range(200):
        image, mask = augment(
            np.repeat(grid, 3, 0), grid, generator(0, step), flips=flips, rotations=rotations, colour=0
        )
        np.testing.assert_array_equal(image[:1], mask)
        seen.add(mask.tobytes())
    assert len(seen) == variants


def test_colour_stays_in_range_and_spares_the_mask(sample):
    image, mask = augment(*sample, generator(3), flips=False, rotations=False, colour=0.9)
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.abs(image - sample[0]).max() > 0.05
    np.testing.assert_array_equal(mask, sample[1])


def test_colour_change_is_bounded():
    grey = np.full((3, 4, 4), 0.5, np.float32)
    means = [
        augment(grey, grey[:1], generator(step), flips=False, rotations=False, colour=0.1)[0].mean()
        for step in range(100)
    ]
    # On a flat grey only the brightness acts.
    assert 0.45 - 1e-6 <= min(means) < 0.46
    assert 0.54 < max(means) <= 0.55 + 1e-6
