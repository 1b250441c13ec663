import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.loader import Batches
from medsegdiff.data.splits import count_held_out, hold_out


class Numbered:
    """Images and masks that hold their own number."""

    fingerprint = "numbered"

    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def image(self, index):
        return np.full((3, 2, 2), int(self.ids[index][1:]) / 1000, np.float32)

    def mask(self, index):
        return np.full((1, 2, 2), int(self.ids[index][1:]) % 2, np.float32)


IDS = [f"n{number}" for number in range(50)]


def test_every_image_is_on_one_side():
    training, validation = hold_out(Numbered(IDS), 0.2)
    assert len(validation) == 10
    assert sorted(training.ids + validation.ids) == sorted(IDS)
    assert training.ids == [name for name in IDS if name in set(training.ids)]


def test_the_choice_depends_on_the_names_alone():
    _, validation = hold_out(Numbered(IDS), 0.2)
    _, other_order = hold_out(Numbered(IDS[::-1]), 0.2)
    assert validation.ids == other_order.ids


def test_images_and_masks_follow_their_names():
    for part in hold_out(Numbered(IDS), 0.3):
        for index, name in enumerate(part.ids):
            assert part.image(index)[0, 0, 0] == np.float32(int(name[1:]) / 1000)
            assert part.mask(index)[0, 0, 0] == int(name[1:]) % 2


def test_another_number_of_validation_images_leaves_training_alone():
    training, all_of_them = hold_out(Numbered(IDS), 0.2)
    again, few = hold_out(Numbered(IDS), 0.2, most=3)
    assert few.ids == all_of_them.ids[:3]
    assert (again.ids, again.fingerprint) == (training.ids, training.fingerprint)


def test_each_part_has_a_fingerprint_of_its_own():
    parts = [part for fraction in (0.2, 0.3) for part in hold_out(Numbered(IDS), fraction)]
    assert len({part.fingerprint for part in parts} | {Numbered.fingerprint}) == 5


def test_a_part_is_cut_into_batches():
    training, _ = hold_out(Numbered(IDS), 0.2)
    batches = Batches(training, 8, seed=0)
    assert sorted(name for step in range(5) for name in batches[step].ids) == sorted(training.ids)


@pytest.mark.parametrize(("images", "fraction", "count"), [(900, 0.1, 90), (3, 0.1, 1), (2, 0.5, 1)])
def test_at_least_one_image_is_held_out(images, fraction, count):
    assert count_held_out(images, fraction) == count


@pytest.mark.parametrize(("images", "fraction"), [(1, 0.1), (3, 0.9)])
def test_something_must_be_left_to_train_on(images, fraction):
    with pytest.raises(InputError, match=f"val_fraction {fraction}: of {images} images"):
        count_held_out(images, fraction)
