import re

import numpy as np

from medsegdiff.io.predictions import Grid, Maps, write_prediction
from medsegdiff.io.volumes import read_volume, to_slices
from medsegdiff.web.cases import choose, show
from medsegdiff.web.runs import Run, read_runs
from tests.data.volumes import ball, write
from tests.web.conftest import predict


def scores(count):
    return {f"i{n}": {"dice": n / count} for n in range(count)}


def test_the_best_the_middle_and_the_worst_are_chosen_once_each():
    assert choose(scores(9)) == [
        ("best", "i8"), ("best", "i7"), ("median", "i5"), ("median", "i4"), ("worst", "i1"), ("worst", "i0"),
    ]  # fmt: skip
    assert choose(scores(3)) == [("best", "i2"), ("best", "i1"), ("worst", "i0")]
    assert choose(scores(1)) == [("best", "i0")]
    assert choose({}) == []
    assert choose({**scores(1), "empty": {"iou": 1.0}}) == [("best", "i0")]


def test_outlines_lie_on_the_edges_of_the_mask(predictions):
    shown = show("best", "case<0>", read_runs([predictions]))
    assert shown.size == (60, 40)
    assert shown.image.startswith("data:image/jpeg;base64,") and shown.panels[0].heat.startswith("data:image/jpeg")
    for path in (shown.truth, shown.panels[0].outline):
        points = [tuple(map(float, pair.split())) for pair in re.split("[MLZ]+", path)[1:-1]]
        assert {round(min(p[axis] for p in points)) for axis in (0, 1)} == {10}
        assert {round(max(p[axis] for p in points)) for axis in (0, 1)} == {30}
    assert shown.panels[0].dice == 1
    assert shown.notes == []


def test_a_picture_that_is_gone_is_said_and_the_rest_is_shown(predictions):
    runs = read_runs([predictions])
    (predictions.parent / "pictures" / "case<0>.jpg").unlink()
    shown = show("best", "case<0>", runs)
    assert "case<0>.jpg: no such file" in shown.notes[0]
    assert not shown.image and shown.truth and shown.panels
    runs[0].sampled["image_files"] = {}
    assert "do not say where it is" in show("best", "case<0>", runs).notes[0]


def test_an_uncertainty_that_cannot_be_read_is_said_and_the_rest_is_shown(predictions):
    (predictions / "case<0>_std.png").write_bytes(b"x")
    shown = show("best", "case<0>", read_runs([predictions]))
    assert "case<0>_std.png" in shown.notes[0]
    assert shown.image and shown.truth and shown.panels[0].outline and not shown.panels[0].heat


def test_other_runs_are_shown_where_they_have_the_image(predictions, tmp_path):
    second = predict(tmp_path / "other" / "few", "nowhere", count=2, shift=3)
    runs = read_runs([predictions, second])
    assert [panel.run for panel in show("best", "case<1>", runs).panels] == [0, 1]
    assert [panel.run for panel in show("best", "case<5>", runs).panels] == [0]


def test_of_a_volume_the_slice_with_the_most_ground_truth_is_shown(tmp_path):
    image, labels = ball()
    picture, truth = write(tmp_path / "i.nii.gz", image), write(tmp_path / "t.nii.gz", labels * np.uint8(3))
    geometry, out = read_volume(picture).geometry, tmp_path / "out"
    found = np.stack([labels == 1, labels == 2]).astype(np.float32)
    write_prediction(out, "v", Maps(found, found / 4), grid=Grid(geometry, {3: 1, 6: 2}))
    sampled = {"image_files": {"v": str(picture)}, "labels": "3:1,6:2"}
    summary = {"num_classes": 3, "ground truth": {"v": str(truth)}}
    config = {"axis": "sagittal", "scaling": "150..550", "colour": False}
    one = Run(predictions=out, sampled=sampled, summary=summary, config=config, scores={"v": {"dice": 1.0}})
    shown = show("best", "v", [one, Run(predictions=out, summary=summary, sampled=sampled, config={"axis": "axial"})])
    counts = [np.count_nonzero(layer) for layer in to_slices(labels, geometry, "sagittal")]
    assert shown.place == f"slice {np.argmax(counts) + 1} of {len(counts)}" and shown.notes == []
    assert shown.size == to_slices(labels, geometry, "sagittal").shape[:0:-1]
    assert shown.image.startswith("data:image/jpeg") and [panel.dice for panel in shown.panels] == [1.0, None]
    for panel in shown.panels:
        assert panel.outline == shown.truth != "" and panel.heat.startswith("data:image/jpeg")
    picture.unlink()
    shown = show("best", "v", [one])
    assert "i.nii.gz: no such file" in shown.notes[0] and shown.truth and shown.panels
