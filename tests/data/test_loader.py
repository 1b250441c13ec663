from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.data.cache import prepare
from medsegdiff.data.loader import Batches


@pytest.fixture
def dataset(label_cases, tmp_path):
    return prepare(label_cases, 16, tmp_path / "cache", progress=False, num_classes=3)


def test_masks_of_several_classes_are_stacked(dataset):
    batches = Batches(dataset, 3, seed=0)
    batch = batches[0]
    assert batch.images.shape == (3, 3, 16, 16)
    assert batch.masks.shape == (3, 2, 16, 16)
    assert batch.images.dtype == batch.masks.dtype == np.float32
    for id, mask in zip(batches.ids(0), batch.masks):
        np.testing.assert_array_equal(mask, dataset.mask(dataset.ids.index(id)))


def test_an_augmented_mask_keeps_its_classes_together(dataset):
    plain, augmented = Batches(dataset, 2, seed=0), Batches(dataset, 2, seed=0, augmented=True)
    changed = False
    for step in range(10):
        for before, after in zip(plain[step].masks, augmented[step].masks):
            assert after.max(0).max() == 1
            assert after.sum(0).max() == 1  # still one class a pixel
            variants = [np.rot90(part, turns, (1, 2)) for part in (before, before[..., ::-1]) for turns in range(4)]
            assert any((after == variant).all() for variant in variants)
            changed |= bool((after != before).any())
    assert changed


def test_chosen_rows_are_those_of_the_whole_batch(dataset):
    whole, part = Batches(dataset, 3, seed=0, augmented=True), Batches(dataset, 3, 0, True, rows=[0, 2])
    for step in range(3):
        assert part.ids(step) == whole.ids(step)
        np.testing.assert_array_equal(part[step].images, whole[step].images[[0, 2]])
        np.testing.assert_array_equal(part[step].masks, whole[step].masks[[0, 2]])


def test_stronger_variants_are_drawn_by_the_seed_the_step_and_the_place_in_the_batch(dataset):
    given = {"augmented": True, "strength": 0.5, "hair": 0.5}
    whole, part = Batches(dataset, 3, seed=0, **given), Batches(dataset, 3, seed=0, rows=[2], **given)
    plain, hairless = Batches(dataset, 3, seed=0, augmented=True), Batches(dataset, 3, 0, True, strength=0.5)
    np.testing.assert_array_equal(part[1].images, whole[1].images[[2]])
    np.testing.assert_array_equal(part[1].masks, whole[1].masks[[2]])
    assert (whole[1].masks != plain[1].masks).any()
    assert any((whole[step].images != hairless[step].images).any() for step in range(3))
