import re

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.measure import measure
from medsegdiff.evaluation.metrics import COMPARED
from medsegdiff.evaluation.predictions import Prediction
from medsegdiff.evaluation.truth import read_truth
from medsegdiff.io.ensembles import ImageRow
from medsegdiff.masks.decision import decide
from medsegdiff.masks.metrics import overlap, published_iou_dice
from medsegdiff.masks.protocols import make_protocol
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.masks.surface import surface
from medsegdiff.masks.uncertainty import (
    brier,
    calibration_histogram,
    expected_calibration_error,
    generalised_energy_distance,
)

SIZE = 32
STEP = 1 / 65535  # of the files


@pytest.fixture
def mask(masks):
    return masks["ISIC_0000004"]


@pytest.fixture
def shifted(mask):
    """The mask at four places, with probabilities of its own."""
    pairs = ((3, 0.9), (-2, 0.6), (8, 0.7), (0, 0.8))
    return [np.where(np.roll(mask, shift, axis=1), high, 0.2).astype(np.float32) for shift, high in pairs]


def published(probability, truth):
    iou, dice = published_iou_dice(
        resize_probability(probability, (SIZE, SIZE)), resize_probability(truth, (SIZE, SIZE))
    )
    return {"published_iou": iou, "published_dice": dice}


def compared(mask, truth):
    return {**overlap(mask, truth)._asdict(), **surface(mask, truth)._asdict()}


def is_perfect(metrics):
    """Whether distances and differences are 0, and all else is 1."""
    return all(value == (not re.match("hd95|assd|volume", name)) for name, value in metrics.items())


def score(folders, truth, path, num_classes=2, ensemble=None):
    protocol = make_protocol(size=SIZE)
    return measure("x", Prediction(path, num_classes), read_truth(truth, num_classes), protocol, ensemble)


def test_one_class_with_all_files(folders, mask, shifted):
    fused, cal, *members = shifted
    truth = folders.save_truth("x", mask)
    found = score(folders, truth, folders.save("x", fused, cal, members), ensemble=ImageRow(2, 1, 0.75))

    expected = {
        **compared(fused > 0.5, mask),
        **published(fused, mask),
        "brier": brier(fused, mask),
        "ged": generalised_energy_distance([member > 0.5 for member in members], mask),
        "agreement": 0.75,
        "empty_members": 0.5,
    }
    of_cal = {**overlap(cal > 0.5, mask)._asdict(), **published(cal, mask)}
    of_members = [{**overlap(member > 0.5, mask)._asdict(), **published(member, mask)} for member in members]
    for key in COMPARED:
        expected[f"cal_{key}"] = of_cal[key]
        expected[f"member_{key}"] = np.mean([values[key] for values in of_members])
    assert found.metrics == pytest.approx(expected, abs=2 * STEP)
    ece = expected_calibration_error([calibration_histogram(fused, mask)])
    assert found.calibration.shape == (1, 3, 15)
    assert expected_calibration_error(found.calibration) == pytest.approx(ece, abs=2 * STEP)


def test_the_mask_alone_gives_no_number_that_needs_more(folders, mask):
    truth = folders.save_truth("x", mask)
    path = folders.save("x", mask)
    path.with_name("x_prob.png").unlink()
    found = score(folders, truth, path, ensemble=ImageRow(1, 0, None))
    assert found.metrics == {"published_iou": 1, "published_dice": 1, **compared(mask, mask)}
    assert is_perfect(found.metrics)
    assert found.calibration is None


def test_several_classes_are_binary_problems(folders, labels):
    random = np.random.default_rng(0)

    def guess(shift):
        moved = np.roll(labels, shift, axis=1)
        probability = np.stack([moved == 1, moved == 2]) * 0.6 + 0.1 * random.random((2, *labels.shape))
        return probability.astype(np.float32)

    fused, cal, *members = (guess(shift) for shift in (2, -3, 5, 0, 9))
    truth = folders.save_truth("x", labels)
    found = score(folders, truth, folders.save("x", fused, cal, members), num_classes=3)

    def of(probability):
        decided = decide(probability)
        rows = [{**compared(decided == c, labels == c), **published(probability[c - 1], labels == c)} for c in (1, 2)]
        return rows, {key: np.mean([row[key] for row in rows]) for key in rows[0]}

    by_class, expected = of(fused)
    for c, row in enumerate(by_class, start=1):
        expected.update({f"{key}_class{c}": value for key, value in row.items() if "published" not in key})
    expected["brier"] = np.mean([brier(fused[c - 1], labels == c) for c in (1, 2)])
    expected["ged"] = np.mean(
        [generalised_energy_distance([decide(member) == c for member in members], labels == c) for c in (1, 2)]
    )
    for key in COMPARED:
        expected[f"cal_{key}"] = of(cal)[1][key]
        expected[f"member_{key}"] = np.mean([of(member)[1][key] for member in members])
    assert found.metrics == pytest.approx(expected, abs=2 * STEP)
    assert found.calibration.shape == (2, 3, 15)


def test_several_classes_without_probabilities_compare_the_masks(folders, labels):
    truth = folders.save_truth("x", labels)
    path = folders.save("x", np.stack([labels == 1, labels == 2]))
    for c in (1, 2):
        path.with_name(f"x_prob{c}.png").unlink()
    found = score(folders, truth, path, num_classes=3)
    assert "brier" not in found.metrics
    assert is_perfect(found.metrics)


def test_a_class_that_never_occurs_counts_in_no_mean(folders, labels):
    guess = np.roll(labels, 4, axis=1)
    layers = np.stack([guess == 1, guess == 2])
    truth = folders.save_truth("x", labels)
    three = score(folders, truth, folders.save("x", layers, layers, [layers, layers]), num_classes=3).metrics
    empty = np.zeros((2, *labels.shape), bool)
    layers = np.concatenate([layers, empty])
    five = score(folders, truth, folders.save("x", layers, layers, [layers, layers]), num_classes=5).metrics
    assert five.pop("brier") < three.pop("brier")  # a mean over pixels, of which there are more
    assert five == pytest.approx(three)
    assert "dice_class3" not in five


def test_a_class_that_is_only_predicted_counts(folders, labels):
    truth = folders.save_truth("x", np.minimum(labels, 1))
    found = score(folders, truth, folders.save("x", np.stack([labels == 1, labels == 2])), num_classes=3).metrics
    assert found["dice_class2"] == 0
    assert found["dice"] == pytest.approx(found["dice_class1"] / 2)


def test_no_class_in_either_is_a_perfect_match(folders, labels):
    truth = folders.save_truth("x", 0 * labels)
    found = score(folders, truth, folders.save("x", np.zeros((2, *labels.shape))), num_classes=3).metrics
    assert (found["dice"], found["published_dice"]) == (1, 1)
    assert "dice_class1" not in found


@pytest.mark.parametrize("high", [1, 100, 127, 65535])
def test_a_mask_of_any_two_values_is_the_same_prediction(folders, mask, high):
    truth = folders.save_truth("x", mask)
    path = folders.predictions / "x.tif"
    Image.fromarray((mask * high).astype(np.uint16)).save(path)
    assert is_perfect(score(folders, truth, path).metrics)


def test_a_prediction_of_more_classes_is_refused(folders, labels):
    truth = folders.save_truth("x", np.minimum(labels, 1))
    path = folders.save("x", np.stack([labels == 0, labels == 1, labels == 2]))
    with pytest.raises(InputError, match=r"pred/x\.png: holds class 3"):
        score(folders, truth, path, num_classes=3)


@pytest.mark.parametrize("name", ["x", "x_prob", "x_cal", "x_member1"])
def test_another_size_is_refused_naming_both(folders, mask, shifted, name):
    truth = folders.save_truth("x", mask)
    path = folders.save("x", shifted[0], shifted[1], shifted[2:])
    small = folders.truth / "small"
    small.mkdir()
    folders.save_truth("small/y", np.ones((20, 30), bool)).rename(path.with_name(f"{name}.png"))
    with pytest.raises(InputError, match=rf"{name}\.png: is 30 x 20 .*x_Segmentation\.png is 60 x 40"):
        score(folders, truth, path)


def test_members_must_be_as_many_as_the_table_says(folders, mask, shifted):
    truth = folders.save_truth("x", mask)
    path = folders.save("x", shifted[0], members=shifted)
    assert "ged" in score(folders, truth, path, ensemble=ImageRow(4, 0, 0.5)).metrics
    with pytest.raises(InputError, match=r"x\.png: has 4 member files, but images\.csv says 3"):
        score(folders, truth, path, ensemble=ImageRow(3, 0, 0.5))
