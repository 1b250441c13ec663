import csv
import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.metrics import Rules, columns
from medsegdiff.evaluation.truth import truth_from_folder
from medsegdiff.masks.metrics import EMPTY_CONVENTION, overlap, published_iou_dice
from medsegdiff.masks.resizing import resize_probability


def test_perfect_predictions_score_one(folders, truth, masks):
    for id, mask in masks.items():
        folders.save(id, mask)
    report = evaluate(folders.predictions, truth)
    always, _ = columns(2)
    assert set(report.summaries) == {*always, "brier"}
    assert not report.missing
    for key in always:
        best = 0 if key in ("hd95", "assd", "volume_difference") else 1
        assert report.summaries[key][:4] == pytest.approx((best, 0, best, best))
        assert report.summaries[key].n == 10
    assert report.summaries["brier"].mean == report.calibration.ece == 0


def test_both_measures_use_their_own_file(folders, truth, masks):
    id = "ISIC_0000004"
    probability = np.where(np.roll(masks[id], 3, axis=1), 0.6, 0.2).astype(np.float32)
    path = folders.save(id, probability)
    one = {id: truth[id]}
    metrics = evaluate(folders.predictions, one, rules=Rules(protocol_size=32)).scores[0].metrics

    square = (32, 32)
    expected = published_iou_dice(resize_probability(probability, square), resize_probability(masks[id], square))
    assert (metrics["published_iou"], metrics["published_dice"]) == pytest.approx(expected, abs=1e-3)
    assert overlap(probability > 0.5, masks[id])._asdict().items() <= metrics.items()
    assert metrics["recall"] == pytest.approx(23 / 26)

    path.with_name(f"{id}_prob.png").unlink()  # now the mask itself is what the protocol compares
    without = evaluate(folders.predictions, one, rules=Rules(protocol_size=32)).scores[0].metrics
    assert without["published_dice"] > metrics["published_dice"] + 0.1
    assert without["dice"] == metrics["dice"]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_the_ground_truth_is_no_prediction(folders, truth, masks, kind):
    if kind == "link":
        (id, *_) = truth
        folders.predictions.mkdir(exist_ok=True)
        (folders.predictions / truth[id].name).symlink_to(truth[id])
    predictions = next(iter(truth.values())).parent if kind == "folder" else folders.predictions
    with pytest.raises(InputError, match="is the ground truth, too, and would agree with itself"):
        evaluate(predictions, truth)


def test_missing_predictions_are_told(folders, truth, masks, tmp_path):
    for id in list(masks)[:3]:
        folders.save(id, masks[id])
    report = evaluate(folders.predictions, truth, out=tmp_path / "new" / "out", note="masks [redrawn]")
    assert report.missing == list(masks)[3:]
    assert report.summaries["dice"].n == 3

    saved = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    assert saved["missing"] == report.missing
    assert saved["images"] == {"with ground truth": 10, "evaluated": 3, "missing": 7}
    assert saved["metrics"]["dice"]["mean"] == 1
    assert saved["predictions"] == str(folders.predictions)
    assert saved["ground truth"] == {id: str(truth[id]) for id in list(masks)[:3]}
    assert saved["note"] == "masks [redrawn]"
    assert EMPTY_CONVENTION in saved["conventions"].values()
    assert saved["versions"]["numpy"] == np.__version__
    with (tmp_path / "new" / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(masks)[:3]
    assert rows[0]["prediction"] == "ISIC_0000000.png"
    assert float(rows[0]["precision"]) == 1


def test_predictions_without_ground_truth_are_told(folders, truth, masks):
    for id, mask in masks.items():
        folders.save(id, mask)
    folders.save("retention", mask)  # what evaluate itself draws
    two = {id: truth[id] for id in list(masks)[:2]}
    gaps = evaluate(folders.predictions, two).gaps
    assert gaps[-1] == "8 predictions have no ground truth and are not scored, such as ISIC_0000002.png"
    assert not any("no ground truth" in line for line in evaluate(folders.predictions, truth).gaps)


def test_ensembles_are_compared_and_ordered(folders, truth, masks):
    """The conditioning network misses by 4 columns, each member by 2 to either side, their mean by none."""
    for n, (id, mask) in enumerate(masks.items()):
        members = [np.roll(mask, shift, axis=1) for shift in (-2, 2)] if n else [mask, mask]
        folders.save(id, mask if n else np.zeros_like(mask), np.roll(mask, 4, axis=1), members)
    folders.save_images_csv(*((id, 2, 0, 0.5 + n / 20) for n, id in enumerate(masks)))
    report = evaluate(folders.predictions, truth)
    assert report.gaps == ()
    rows = report.comparison.metrics["dice"]
    widths = 10 + 4 * np.arange(10)
    assert rows["cal"].mean == pytest.approx((1 - 4 / widths).mean())
    assert rows["member"].mean == pytest.approx(np.append(1 - 2 / widths[1:], 1).mean())
    assert rows["ensemble - cal"].mean == pytest.approx(0.9 - (1 - 4 / widths).mean())
    # The least agreed-on image alone is wrong: what is kept is right until it comes.
    np.testing.assert_allclose(report.selection.retention.curve, [0] * 9 + [0.1], atol=1e-12)
    assert report.selection.retention.area == pytest.approx(report.selection.retention.oracle_area)


def test_what_was_not_saved_is_told(folders, truth, masks):
    id = next(iter(masks))
    folders.save(id, masks[id], members=[masks[id]])
    folders.save_images_csv((id, 1, 0, ""))
    report = evaluate(folders.predictions, {id: truth[id]})
    assert report.summaries["ged"].mean == 0
    assert report.comparison is report.selection is None
    assert [line.split(":")[0] for line in report.gaps] == ["conditioning network against ensemble", "error retention"]


def test_several_classes(folders, labels, tmp_path):
    perfect = np.stack([labels == 1, labels == 2])
    swapped = perfect[::-1]
    for id, probability in (("a", perfect), ("b", swapped)):
        folders.save_truth(id, labels)
        folders.save(id, probability)
    truth = truth_from_folder(folders.truth)
    report = evaluate(folders.predictions, truth, out=tmp_path / "out", rules=Rules(num_classes=3))
    for key in ("dice", "iou", "precision", "recall", "dice_class1", "recall_class2"):
        assert report.summaries[key].mean == 0.5
    assert report.summaries["published_dice"].mean == pytest.approx(0.5, abs=0.05)
    wrong = (labels > 0).mean()  # of each class in "b"
    assert report.summaries["brier"].mean == pytest.approx(wrong / 2)
    saved = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert saved["num_classes"] == 3
    assert saved["metrics"]["dice_class2"]["mean"] == 0.5
    with pytest.raises(InputError, match=r"a_Segmentation\.png: its highest grey level is 2"):
        evaluate(folders.predictions, truth)
    with pytest.raises(InputError, match=r"a_prob3\.png: no such file"):
        evaluate(folders.predictions, truth, rules=Rules(num_classes=4))


def test_one_image_has_no_standard_deviation_in_valid_json(folders, truth, masks, tmp_path):
    folders.save("ISIC_0000000", masks["ISIC_0000000"])
    evaluate(folders.predictions, truth, out=tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["iou"]["std"] is None


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_names_of_the_published_sampler(folders, truth, masks, suffix):
    small = resize_probability(masks["ISIC_0000003"], (64, 64))
    Image.fromarray(np.round(small * 255).astype(np.uint8)).convert("RGB").save(
        folders.predictions / f"0000003_output_ens.{suffix}", quality=95
    )
    report = evaluate(folders.predictions, truth)
    assert [score.id for score in report.scores] == ["ISIC_0000003"]
    assert report.summaries["dice"].mean > 0.97
    assert report.summaries["published_dice"].mean > 0.9
    assert report.summaries["brier"].mean < 0.03


def test_no_prediction_at_all(folders, truth):
    with pytest.raises(InputError, match=r"no prediction for any of the 10"):
        evaluate(folders.predictions, truth)
    with pytest.raises(InputError, match="no ground truth"):
        evaluate(folders.predictions, {})


def test_damaged_files_are_named(folders, truth, masks):
    id = "ISIC_0000002"
    path = folders.save(id, masks[id])
    content = truth[id].read_bytes()
    truth[id].write_bytes(content[:50])
    with pytest.raises(InputError, match=f"{id}_Segmentation"):
        evaluate(folders.predictions, truth)
    truth[id].write_bytes(content)
    path.with_name(f"{id}_prob.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"{id}_prob.*empty"):
        evaluate(folders.predictions, truth)


def test_truth_of_zeros_and_ones_counts_as_binary(folders, truth, masks):
    id = "ISIC_0000002"
    folders.save(id, masks[id])
    Image.fromarray(masks[id].astype(np.uint8)).save(truth[id])
    assert evaluate(folders.predictions, truth).summaries["dice"].mean == 1
