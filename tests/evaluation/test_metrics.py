import csv
import json

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation import metrics
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.metrics import METRICS, NEEDS, Metric, Rules, class_metrics, columns
from medsegdiff.evaluation.truth import Truth, truth_from_folder
from medsegdiff.masks.surface import surface
from tests.evaluation.test_screen import printed, row

BY_CLASS = [
    *("dice", "iou", "precision", "recall"),
    *("hd95", "assd", "nsd", "lesion_f1", "volume_difference"),
]


def test_every_number_has_a_column_and_every_need_is_known():
    always, others = columns(3)
    assert always == ["published_iou", "published_dice", *BY_CLASS]
    assert others[:4] == ["brier", "ged", "agreement", "empty_members"]
    assert others[4:] == [f"{kind}_{name}" for kind in ("cal", "member") for name in metrics.COMPARED] + class_metrics(
        3
    )
    assert {metric.needs for metric in METRICS.values()} <= {"mask", *NEEDS}
    assert all(need.sign in [*always, *others] for need in NEEDS.values())


def test_columns_of_single_classes():
    assert class_metrics(2) == []
    assert class_metrics(3) == [f"{name}_class{label}" for label in (1, 2) for name in BY_CLASS]


def test_a_new_metric_is_one_row(folders, labels, tmp_path, monkeypatch):
    """Of the whole mask; in millimetres where pixels have a size; of a class without a prediction there is none."""

    def missed(part):
        area = (part.target.mask & ~part.mask).sum() * np.prod(part.spacing or (1, 1))
        return float(area) if part.mask.any() else None

    new = Metric("Area missed (best 0)", missed, by_class=True, meaning="of the ground truth")
    monkeypatch.setitem(METRICS, "missed", new)
    folders.save_truth("a", labels)
    folders.save("a", np.stack([labels == 1, np.zeros(labels.shape)]))
    folders.save_truth("b", labels)
    moved = np.roll(labels == 1, 3, axis=0)
    folders.save("b", np.stack([moved, (labels == 2) & ~moved]))
    truth = truth_from_folder(folders.truth)
    report = evaluate(folders.predictions, truth, Rules(num_classes=3), tmp_path / "out")
    lost = [((labels == 1) & ~moved).sum(), ((labels == 2) & moved).sum()]
    assert [score.metrics["missed"] for score in report.scores] == [0, np.mean(lost)]
    assert report.summaries["missed_class1"].mean == lost[0] / 2
    assert report.summaries["missed_class2"][:1] + report.summaries["missed_class2"][-1:] == (lost[1], 1)
    assert report.conventions["Area missed (best 0)"] == "of the ground truth"
    text = printed(report)
    assert row(text, "Area missed (best 0)")[0] == f"{np.mean(lost) / 2:.4f}"
    assert row(text.rpartition("Volume")[2], "1")[-1] == f"{lost[0] / 2:.4f}"
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["missed"]) for row in rows] == [0, np.mean(lost)]
    assert rows[0]["missed_class2"] == ""


def moved(mask, by):
    return np.roll(mask, by, axis=1)


def test_surfaces_are_measured_class_by_class(folders, labels, tmp_path):
    folders.save_truth("a", labels)
    shifted = [moved(labels == 1, 2), moved(labels == 2, 2) & ~moved(labels == 1, 2)]
    folders.save("a", np.stack(shifted))
    truth = truth_from_folder(folders.truth)
    report = evaluate(folders.predictions, truth, out=tmp_path / "out", rules=Rules(num_classes=3, tolerance=1.5))
    expected = [surface(shifted[label - 1], labels == label, None, 1.5) for label in (1, 2)]
    found = report.scores[0].metrics
    for place, name in enumerate(BY_CLASS[4:]):
        assert [found[f"{name}_class{label}"] for label in (1, 2)] == [one[place] for one in expected]
        assert found[name] == np.mean([one[place] for one in expected])
    text = printed(report)
    assert row(text, "HD95 (pixels, best 0)")[0] == f"{found['hd95']:.4f}"
    assert row(text, "NSD at 1.5 pixels")[0] == f"{found['nsd']:.4f}"
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (content["tolerance"], content["unit"]) == (1.5, "pixels")


def test_millimetres_where_pixels_have_a_size(folders, masks, monkeypatch):
    mask = masks["ISIC_0000000"]
    folders.save_truth("a", mask)
    folders.save("a", moved(mask, 3))
    monkeypatch.setattr(Truth, "spacing", (0.5, 2.0))
    report = evaluate(folders.predictions, truth_from_folder(folders.truth))
    assert report.scores[0].metrics["hd95"] == surface(moved(mask, 3), mask, (0.5, 2.0)).hd95 > 3
    assert row(printed(report), "HD95 (mm, best 0)")


@pytest.mark.parametrize(("empty", "dice", "hd95", "n"), [("one", 1, 0, 2), ("zero", 0.5, 36.06, 2), ("skip", 1, 0, 1)])
def test_two_empty_masks_count_as_asked(empty, dice, hd95, n, folders, masks):
    nothing = np.zeros((40, 60), bool)
    for id, mask in (("a", masks["ISIC_0000000"]), ("b", nothing)):
        folders.save_truth(id, mask)
        folders.save(id, mask, cal=mask, members=[mask, mask])
    folders.save_images_csv(("a", 2, 0, 1), ("b", 2, 2, 1))
    report = evaluate(folders.predictions, truth_from_folder(folders.truth), rules=Rules(empty=empty))
    for name, value in (("dice", dice), ("iou", dice), ("precision", dice), ("recall", dice), ("hd95", hd95)):
        assert report.summaries[name].mean == pytest.approx(value, abs=0.01)
        assert report.summaries[name].n == n
    assert report.comparison.images == n
    for kind in ("cal", "member", "ensemble"):  # all equal the prediction
        assert report.comparison.metrics["dice"][kind].mean == pytest.approx(dice)
    assert (report.selection is None) == (n == 1)
    assert report.summaries["published_dice"][:1] == pytest.approx((1,))  # has a convention of its own


@pytest.mark.parametrize(("empty", "dice"), [("one", 0.5), ("zero", 0), ("skip", 0)])
def test_an_empty_member_of_an_empty_truth_counts_as_asked(empty, dice, folders, masks):
    nothing, mask = np.zeros((40, 60), bool), masks["ISIC_0000000"]
    folders.save_truth("a", nothing)
    folders.save("a", mask, cal=nothing, members=[mask, nothing])
    (score,) = evaluate(folders.predictions, truth_from_folder(folders.truth), rules=Rules(empty=empty)).scores
    assert score.metrics["member_dice"] == dice
    assert score.metrics.get("cal_dice") == {"one": 1, "zero": 0, "skip": None}[empty]


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
def test_a_mask_that_was_missed_always_counts(empty, folders, masks):
    folders.save_truth("a", masks["ISIC_0000000"])
    folders.save("a", np.zeros((40, 60)))
    report = evaluate(folders.predictions, truth_from_folder(folders.truth), rules=Rules(empty=empty))
    assert report.summaries["dice"].mean == 0
    assert report.summaries["hd95"].mean == pytest.approx(np.hypot(40, 60))


@pytest.mark.parametrize(
    ("rules", "said"),
    [({"empty": "two"}, "empty two: must be one of skip, one, zero"), ({"tolerance": -1}, "tolerance -1: must not be")],
)
def test_rules_that_make_no_sense_are_refused(rules, said):
    with pytest.raises(InputError, match=said):
        Rules(**rules)
