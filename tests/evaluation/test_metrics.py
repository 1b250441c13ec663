import csv

import numpy as np

from medsegdiff.evaluation import metrics
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.metrics import METRICS, NEEDS, Metric, class_metrics, columns
from medsegdiff.evaluation.truth import truth_from_folder
from tests.evaluation.test_screen import printed, row


def test_every_number_has_a_column_and_every_need_is_known():
    always, others = columns(3)
    assert always == ["published_iou", "published_dice", "dice", "iou", "precision", "recall"]
    assert others[:4] == ["brier", "ged", "agreement", "empty_members"]
    assert others[4:] == [f"{kind}_{name}" for kind in ("cal", "member") for name in metrics.COMPARED] + class_metrics(
        3
    )
    assert {metric.needs for metric in METRICS.values()} <= {"mask", *NEEDS}
    assert all(need.sign in [*always, *others] for need in NEEDS.values())


def test_columns_of_single_classes():
    assert class_metrics(2) == []
    assert class_metrics(3) == [
        *("dice_class1", "iou_class1", "precision_class1", "recall_class1"),
        *("dice_class2", "iou_class2", "precision_class2", "recall_class2"),
    ]


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
    report = evaluate(folders.predictions, truth_from_folder(folders.truth), out=tmp_path / "out", num_classes=3)
    lost = [((labels == 1) & ~moved).sum(), ((labels == 2) & moved).sum()]
    assert [score.metrics["missed"] for score in report.scores] == [0, np.mean(lost)]
    assert report.summaries["missed_class1"].mean == lost[0] / 2
    assert report.summaries["missed_class2"][:1] + report.summaries["missed_class2"][-1:] == (lost[1], 1)
    assert report.conventions["Area missed (best 0)"] == "of the ground truth"
    text = printed(report)
    assert row(text, "Area missed (best 0)")[0] == f"{np.mean(lost) / 2:.4f}"
    assert row(text, "1")[-1] == f"{lost[0] / 2:.4f}"
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["missed"]) for row in rows] == [0, np.mean(lost)]
    assert rows[0]["missed_class2"] == ""
