from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.loader import Batches
from medsegdiff.data.splits import Split, count_held_out, divide, hold_out, read_split


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
    assert sorted(name for step in range(5) for name in batches.ids(step)) == sorted(training.ids)


@pytest.mark.parametrize(("images", "fraction", "count"), [(900, 0.1, 90), (3, 0.1, 1), (2, 0.5, 1)])
def test_at_least_one_image_is_held_out(images, fraction, count):
    assert count_held_out(images, fraction) == count


@pytest.mark.parametrize(("images", "fraction"), [(1, 0.1), (3, 0.9)])
def test_something_must_be_left_to_train_on(images, fraction):
    with pytest.raises(InputError, match=f"val_fraction {fraction}: of {images} images"):
        count_held_out(images, fraction)


def cases_of(patients):
    return [Case(f"c{number}", (Path(f"c{number}.png"),), None, patient) for number, patient in enumerate(patients)]


def test_validation_is_held_out_by_patient():
    dataset = Numbered(IDS)
    dataset.groups = [f"p{number // 5}" for number in range(50)]
    training, validation = hold_out(dataset, 0.2)
    assert len(set(validation.groups)) == 2
    assert not set(training.groups) & set(validation.groups)
    assert len(training) + len(validation) == 50
    _, named = hold_out(dataset, 0.2, names={"p3"})
    assert set(named.groups) == {"p3"}


def test_test_cases_are_chosen_by_patient_whatever_the_order():
    cases = cases_of([f"p{number // 3}" for number in range(30)])
    split = divide(cases, 0.2)
    assert len(split.test) == 6
    assert sorted(split.train + split.test) == sorted(case.id for case in cases)
    patients = {case.id: case.group for case in cases}
    assert not {patients[id] for id in split.train} & {patients[id] for id in split.test}
    assert set(divide(cases[::-1], 0.2).test) == set(split.test)
    assert len(divide(cases_of([""] * 60), 0.2).test) == 12


def test_folds_are_disjoint_and_complete():
    cases = cases_of([""] * 11)
    tests = [divide(cases, 0.2, 4, fold).test for fold in range(4)]
    assert sorted(id for test in tests for id in test) == sorted(case.id for case in cases)
    with pytest.raises(InputError, match="fold 0 of 4: of 1 patients 1 would be the test set"):
        divide(cases_of(["a"]), 0.2, 4, 0)


def test_a_file_may_name_cases_or_patients(tmp_path):
    cases = cases_of(["p", "p", "q", "", ""])
    (tmp_path / "split.json").write_text('{"train": ["p", "c3"], "val": ["c4"], "test": ["q"]}')
    assert read_split(tmp_path / "split.json", cases) == Split(["c0", "c1", "c3"], ["c4"], ["c2"])
    (tmp_path / "splits_final.json").write_text('[{"train": ["p"]}, {"train": ["q", "c3"], "val": ["p"]}]')
    assert read_split(tmp_path / "splits_final.json", cases, 1) == Split(["c2", "c3"], ["c0", "c1"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{half", "is not JSON"),
        ('{"train": ["c0"]}', "holds 1 split, counted from 0, and no fold 1"),
        ('[{}, {"practice": ["c0"]}]', "no split"),
        ('[{"train": ["c0"]}]', "holds 1 split, counted from 0, and no fold 1"),
        ('[{}, {"train": 5}]', "no split"),
        ('[{}, {"train": ["z"]}]', "names z, which is not a case or patient"),
        ('[{}, {"train": ["c0"], "test": ["c1"]}]', "p is in train and in test"),
        ('[{}, {"test": ["c0"]}]', "names no case to train on"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path, text, said):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_split(tmp_path / "split.json", cases_of(["p", "p", "q"]), 1)
    assert str(caught.value).startswith(f"{tmp_path / 'split.json'}: ")
    assert said in str(caught.value)
