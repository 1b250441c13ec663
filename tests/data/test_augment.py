from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.base.randomness import generator
from medsegdiff.data import augment as module
from medsegdiff.data.augment import augment


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


PLAIN = {"flips": False, "rotations": False, "colour": 0}


def ramps(size):
    """An image whose first two channels tell where each pixel comes from."""
    rows, columns = np.meshgrid(*2 * [np.linspace(0, 1, size, dtype=np.float32)], indexing="ij")
    return np.stack([rows, columns, np.full_like(rows, 0.5)])


def test_a_warped_mask_lies_where_its_image_does(monkeypatch):
    monkeypatch.setattr("medsegdiff.data.augment._HUE", 0)
    monkeypatch.setattr("medsegdiff.data.augment._COLOUR", 0)
    image = ramps(64)
    inside = np.hypot(image[0] - 0.5, image[1] - 0.4) < 0.2
    moved = []
    for step in range(30):
        warped, mask = augment(image, inside[None].astype(np.float32), generator(step), **PLAIN, strength=1)
        from_there = np.hypot(warped[0] - 0.5, warped[1] - 0.4)
        assert set(np.unique(mask)) == {0, 1}
        assert (mask[0] == (from_there < 0.2))[np.abs(from_there - 0.2) > 0.02].all()
        moved.append([mask.mean(), *(np.argwhere(mask[0]).mean(0))])
    areas = np.array(moved)[:, 0] / inside.mean()
    assert areas.min() < 0.7
    assert areas.max() > 1.4
    assert 0.7 < np.exp(np.log(areas).mean()) < 1.4  # neither grown nor shrunk on average
    assert (np.array(moved)[:, 1:].std(0) > 4).all()


def test_what_strength_adds_vanishes_with_it(sample):
    image, mask = sample[0], sample[1][:1]
    faint = augment(image, mask, generator(4), **PLAIN, strength=1e-4)
    np.testing.assert_allclose(faint[0], image, atol=2e-3)
    np.testing.assert_array_equal(faint[1], mask)


def test_a_warp_keeps_one_class_a_pixel_and_all_in_range():
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 4, (8, 8)), np.ones((4, 4), int))
    masks = (labels == np.arange(1, 4)[:, None, None]).astype(np.float32)
    image = rng.random((3, 32, 32), np.float32)
    for step in range(20):
        warped, mask = augment(image, masks, generator(step), strength=1, hair=1)
        assert warped.dtype == mask.dtype == np.float32
        assert warped.flags.c_contiguous
        assert mask.flags.c_contiguous
        assert mask.sum(0).max() == 1
        assert set(np.unique(mask)) == {0, 1}
        assert mask.any((1, 2)).all()
        assert warped.min() >= 0
        assert warped.max() <= 1


def test_outside_is_the_mirrored_image(monkeypatch):
    for name in ("_DEGREES", "_ELASTIC", "_HUE", "_COLOUR"):
        monkeypatch.setattr(f"medsegdiff.data.augment.{name}", 0)
    monkeypatch.setattr("medsegdiff.data.augment._ZOOM", 1)
    monkeypatch.setattr("medsegdiff.data.augment._SHIFT", 0.25)
    image = ramps(16)
    rng = generator(7)
    rng.uniform(size=2)
    down, right = 0.25 * 16 * rng.uniform(-1, 1, 2)
    warped, _ = augment(image, image[:1] * 0, generator(7), **PLAIN, strength=1)
    padded = np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="symmetric")
    for channel, offset, axis in ((0, down, 0), (1, right, 1)):
        whole = int(np.floor(offset))
        lines = padded[channel].take(8, axis=1 - axis)
        shifted = [lines[5 + whole + step : 5 + whole + step + 16] for step in (0, 1)]
        expected = shifted[0] + (offset - whole) * (shifted[1] - shifted[0])
        np.testing.assert_allclose(warped[channel].take(8, axis=1 - axis), expected, atol=1e-5)


def test_hairs_are_thin_dark_and_only_on_the_image():
    image = np.full((3, 64, 64), 0.8, np.float32)
    mask = (np.arange(64) < 20).astype(np.float32) * np.ones((1, 64, 1), np.float32)
    drawn = [augment(image, mask, generator(step), **PLAIN, hair=0.5) for step in range(60)]
    shares = [(np.abs(hairy - image).max(0) > 0.02).mean() for hairy, _ in drawn]
    assert 15 < sum(share > 0 for share in shares) < 45
    assert 0.005 < np.mean([share for share in shares if share]) < 0.3
    for hairy, same in drawn:
        np.testing.assert_array_equal(same, mask)
        assert (hairy <= image + 1e-6).all()


def test_the_hue_turns_and_greys_stay_grey(monkeypatch):
    for name in ("_DEGREES", "_ELASTIC", "_SHIFT", "_COLOUR"):
        monkeypatch.setattr(f"medsegdiff.data.augment.{name}", 0)
    monkeypatch.setattr("medsegdiff.data.augment._ZOOM", 1)
    colours = np.array([[0.7, 0.5, 0.4], [0.6, 0.6, 0.6]], np.float32).T.reshape(3, 1, 2).repeat(2, 1)
    hues = []
    for step in range(50):
        turned, _ = augment(colours, colours[:1] * 0, generator(step), **PLAIN, strength=1)
        np.testing.assert_allclose(turned[:, 0, 1], 0.6, atol=1e-5)
        np.testing.assert_allclose(turned[:, 0, 0].sum(), 1.6, atol=1e-4)
        hues.append(turned[1, 0, 0] - turned[2, 0, 0])
    assert min(hues) < 0.07 < 0.13 < max(hues)


def test_stickers_are_coloured_discs_at_the_edge_without_a_mask_below():
    image, mask = np.full((3, 64, 64), 0.6, np.float32), np.ones((1, 64, 64), np.float32)
    drawn = [augment(image, mask, generator(step), **PLAIN, stickers=0.5) for step in range(60)]
    changed = [np.abs(stuck - image).max(0) > 0.02 for stuck, _ in drawn]
    assert 20 <= sum(change.any() for change in changed) <= 40
    for (stuck, cut), change in zip(drawn, changed):
        edge = np.concatenate([change[0], change[-1], change[:, 0], change[:, -1]])
        assert change.mean() < 0.3
        assert edge.any() == change.any()
        assert stuck.min() >= 0 and stuck.max() <= 1
        assert not cut[0][change & (np.abs(stuck - image).min(0) > 0.1)].any()  # below the disc
        assert cut[0][~change].all()  # and nowhere else


def test_a_warp_is_scipys_and_a_pixel_goes_to_the_class_that_has_most_of_it():
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(5)
    image = rng.random((3, 32, 32), np.float32)
    masks = (rng.integers(0, 4, (32, 32)) == np.arange(1, 4)[:, None, None]).astype(np.float32)
    for step in range(5):
        sources = module._sources(32, 1, generator(step))
        warped, mask = module._warp(image, masks, sources)
        expected = [ndimage.map_coordinates(layer, sources, order=1, mode="reflect") for layer in (*image, *masks)]
        np.testing.assert_allclose(warped, expected[:3], atol=2e-5)
        shares = np.stack([1 - sum(expected[3:]), *expected[3:]])
        clear = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0] > 1e-4
        labels = shares.argmax(axis=0) == np.arange(1, 4)[:, None, None]
        np.testing.assert_array_equal(mask[:, clear], labels[:, clear])
        assert clear.mean() > 0.99


def test_of_equal_shares_the_first_class_and_the_background_before_it():
    shares = np.array([[[0.5, 0.375, 0.25]], [[0, 0.375, 0.375]]], np.float32)
    np.testing.assert_array_equal(module._heaviest(shares), [[[False, True, False]], [[False, False, False]]])


def test_colours_change_one_after_another_and_are_cut_off_once():
    image, factors = np.random.default_rng(6).random((3, 8, 8), np.float32), np.array([1.2, 0.7, 1.6], np.float32)
    luminance = np.array([0.299, 0.587, 0.114])[:, None, None]
    brighter = factors[0] * image.astype(np.float64)
    middle = (luminance * brighter).sum(0).mean()
    flatter = middle + factors[1] * (brighter - middle)
    grey = (luminance * flatter).sum(0)
    expected = np.clip(grey + factors[2] * (flatter - grey), 0, 1)
    np.testing.assert_allclose(module._jitter(image, factors), expected, atol=1e-6)
