import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medsegdiff.engine.evaluate import METRICS, evaluate, truth_from_folder
from medsegdiff.masks.files import resize_probability, write_prediction
from medsegdiff.masks.metrics import EMPTY_CONVENTION, overlap, published_iou_dice
from medsegdiff.runtime.errors import InputError

SHAPE = (40, 60)


def save(path, mask):
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


@pytest.fixture
def masks():
    """Ten ground truths of growing width by id, ids as in the challenge."""
    masks = {}
    for i in range(10):
        mask = np.zeros(SHAPE, bool)
        mask[10:30, 5 : 15 + 4 * i] = True
        masks[f"ISIC_{i:07d}"] = mask
    return masks


@pytest.fixture
def truth(tmp_path, masks):
    (tmp_path / "truth").mkdir()
    for id, mask in masks.items():
        save(tmp_path / "truth" / f"{id}_Segmentation.png", mask)
    return truth_from_folder(tmp_path / "truth")


@pytest.fixture
def pred_dir(tmp_path):
    (tmp_path / "pred").mkdir()
    return tmp_path / "pred"


def printed(report):
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    return console.file.getvalue()


def test_perfect_predictions_score_one(pred_dir, truth, masks):
    for id, mask in masks.items():
        write_prediction(pred_dir, id, mask.astype(np.float32))
    report = evaluate(pred_dir, truth)
    assert set(report.summaries) == set(METRICS)
    assert not report.missing
    for summary in report.summaries.values():
        assert summary[:4] == pytest.approx((1, 0, 1, 1))
        assert summary.n == 10


def test_both_measures_use_their_own_file(pred_dir, truth, masks):
    id = "ISIC_0000004"
    probability = np.where(np.roll(masks[id], 3, axis=1), 0.6, 0.2).astype(np.float32)
    write_prediction(pred_dir, id, probability)
    one = {id: truth[id]}
    metrics = evaluate(pred_dir, one, protocol_size=32).scores[0].metrics

    square = (32, 32)
    expected = published_iou_dice(resize_probability(probability, square), resize_probability(masks[id], square))
    assert (metrics["published_iou"], metrics["published_dice"]) == pytest.approx(expected, abs=1e-3)
    assert overlap(probability > 0.5, masks[id])._asdict().items() <= metrics.items()
    assert metrics["recall"] == pytest.approx(23 / 26)

    (pred_dir / f"{id}_prob.png").unlink()  # now the mask itself is what the protocol compares
    without = evaluate(pred_dir, one, protocol_size=32).scores[0].metrics
    assert without["published_dice"] > metrics["published_dice"] + 0.1
    assert without["dice"] == metrics["dice"]


def test_missing_predictions_are_told(pred_dir, truth, masks, tmp_path):
    for id in list(masks)[:3]:
        write_prediction(pred_dir, id, masks[id].astype(np.float32))
    report = evaluate(pred_dir, truth, out=tmp_path / "new" / "out", note="masks [redrawn]")
    assert report.missing == list(masks)[3:]
    assert report.summaries["dice"].n == 3

    text = printed(report)
    assert "3 of 10 images" in text
    assert "7 without a prediction" in text
    assert "ISIC_0000007 and 2 more" in text
    assert "ISIC_0000008" not in text
    assert "masks [redrawn]" in text
    assert EMPTY_CONVENTION in text

    saved = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    assert saved["missing"] == report.missing
    assert saved["images"] == {"with ground truth": 10, "evaluated": 3, "missing": 7}
    assert saved["metrics"]["dice"]["mean"] == 1
    assert saved["note"] == "masks [redrawn]"
    assert EMPTY_CONVENTION in saved["conventions"].values()
    assert saved["versions"]["numpy"] == np.__version__
    with (tmp_path / "new" / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(masks)[:3]
    assert rows[0]["prediction"] == "ISIC_0000000.png"
    assert float(rows[0]["precision"]) == 1


def test_one_image_has_no_spread_in_valid_json(pred_dir, truth, masks, tmp_path):
    write_prediction(pred_dir, "ISIC_0000000", masks["ISIC_0000000"].astype(np.float32))
    report = evaluate(pred_dir, truth, out=tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["iou"]["std"] is None
    assert "nan" not in printed(report)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_names_of_the_published_sampler(pred_dir, truth, masks, suffix):
    small = resize_probability(masks["ISIC_0000003"], (64, 64))
    Image.fromarray(np.round(small * 255).astype(np.uint8)).convert("RGB").save(
        pred_dir / f"0000003_output_ens.{suffix}", quality=95
    )
    report = evaluate(pred_dir, truth)
    assert [score.id for score in report.scores] == ["ISIC_0000003"]
    assert report.summaries["dice"].mean > 0.97
    assert report.summaries["published_dice"].mean > 0.9


def test_another_size_is_refused_naming_both(pred_dir, truth):
    write_prediction(pred_dir, "ISIC_0000001", np.ones((20, 30), np.float32))
    with pytest.raises(InputError, match=r"ISIC_0000001\.png: is 30 x 20 .*Segmentation\.png is 60 x 40"):
        evaluate(pred_dir, truth)
    write_prediction(pred_dir, "ISIC_0000001", np.ones(SHAPE, np.float32))
    save(pred_dir / "ISIC_0000001_prob.png", np.ones((20, 30)))
    with pytest.raises(InputError, match=r"ISIC_0000001_prob\.png: is 30 x 20"):
        evaluate(pred_dir, truth)


def test_no_prediction_at_all(pred_dir, truth):
    with pytest.raises(InputError, match=r"no prediction for any of the 10"):
        evaluate(pred_dir, truth)
    with pytest.raises(InputError, match="no ground truth"):
        evaluate(pred_dir, {})


def test_damaged_files_are_named(pred_dir, truth, masks):
    id = "ISIC_0000002"
    write_prediction(pred_dir, id, masks[id].astype(np.float32))
    content = truth[id].read_bytes()
    truth[id].write_bytes(content[:50])
    with pytest.raises(InputError, match=f"{id}_Segmentation"):
        evaluate(pred_dir, truth)
    truth[id].write_bytes(content)
    (pred_dir / f"{id}_prob.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"{id}_prob.*empty"):
        evaluate(pred_dir, truth)


def test_truth_of_zeros_and_ones_counts_as_binary(pred_dir, truth, masks):
    id = "ISIC_0000002"
    write_prediction(pred_dir, id, masks[id].astype(np.float32))
    Image.fromarray(masks[id].astype(np.uint8)).save(truth[id])
    assert evaluate(pred_dir, truth).summaries["dice"].mean == 1
    Image.fromarray(masks[id].astype(np.uint8) * 2).save(truth[id])
    with pytest.raises(InputError, match="highest grey level is 2"):
        evaluate(pred_dir, truth)


def test_truth_from_folder(tmp_path):
    with pytest.raises(InputError, match="absent: is not a folder"):
        truth_from_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no PNG"):
        truth_from_folder(tmp_path)
    for name in ("b.png", "a.1.png", ".c.png", "d.jpg"):
        (tmp_path / name).touch()
    assert truth_from_folder(tmp_path) == {"a.1": tmp_path / "a.1.png", "b": tmp_path / "b.png"}
    for name in ("ISIC_2_Segmentation.png", "ISIC_1_segmentation.png"):
        (tmp_path / name).touch()
    assert list(truth_from_folder(tmp_path)) == ["ISIC_1", "ISIC_2"]
