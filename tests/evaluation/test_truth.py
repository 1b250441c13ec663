import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.truth import read_classes, read_truth, truth_from_folder
from medsegdiff.io.dicom.segmentation import write_segmentation
from medsegdiff.io.predictions import Grid, Maps, write_prediction
from medsegdiff.io.volumes import read_volume
from tests.data.volumes import write


def test_truth_from_folder(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        truth_from_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no picture"):
        truth_from_folder(tmp_path)
    for name in ("b.PNG", "a.1.tif", ".c.png", "d.txt"):
        (tmp_path / name).touch()
    assert truth_from_folder(tmp_path) == {"a.1": tmp_path / "a.1.tif", "b": tmp_path / "b.PNG"}
    for name in ("ISIC_2_Segmentation.png", "ISIC_1_segmentation.png"):
        (tmp_path / name).touch()
    assert list(truth_from_folder(tmp_path)) == ["ISIC_1", "ISIC_2"]


@pytest.mark.parametrize(
    ("grey", "soft"),
    [
        ([0, 1], [0, 1]),
        ([0, 255], [0, 1]),
        ([51, 204], [0, 1]),
        ([0, 51, 204, 0, 255], [0, 0.2, 0.8, 0, 1]),
        ([0, 0], [0, 0]),
    ],
)
def test_two_classes_are_grey_levels(tmp_path, grey, soft):
    Image.fromarray(np.array([grey], np.uint8)).save(tmp_path / "x.png")
    truth = read_truth(tmp_path / "x.png")
    np.testing.assert_allclose(truth.soft(1), [soft], rtol=1e-6)
    assert truth.soft(1).dtype == np.float32
    np.testing.assert_array_equal(truth.mask(1), [np.array(soft) > 0.5])


def test_class_indices_taken_for_grey_levels_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png: its highest grey level is 2; .*num_classes"):
        read_truth(tmp_path / "x.png")


@pytest.mark.parametrize("palette", [False, True])
def test_more_classes_are_indices(tmp_path, labels, palette):
    picture = Image.fromarray(labels)
    if palette:
        picture.putpalette([10, 20, 30, 40, 50, 60, 200, 100, 0])
    picture.save(tmp_path / "x.png")
    truth = read_truth(tmp_path / "x.png", num_classes=4)
    assert truth.shape == labels.shape
    for label in (1, 2, 3):
        np.testing.assert_array_equal(truth.mask(label), labels == label)
        np.testing.assert_array_equal(truth.soft(label), (labels == label).astype(np.float32))


def test_an_index_beyond_the_last_class_is_refused(tmp_path, labels):
    Image.fromarray(labels + np.uint8(1)).save(tmp_path / "x.png")
    assert read_classes(tmp_path / "x.png", 4).max() == 3
    with pytest.raises(InputError, match=r"x\.png: holds class 3, but with num_classes 3 they are 0 to 2"):
        read_truth(tmp_path / "x.png", 3)


def test_a_dicom_segmentation_is_read_on_its_predictions_grid(make_series, tmp_path):
    geometry = read_volume(make_series()[0]).geometry
    labels = np.zeros(geometry.shape, np.uint8)
    labels[3:9, 2:7, 1:6] = 1
    write_segmentation(tmp_path / "seg.dcm", labels, geometry)
    layers = Maps((np.roll(labels, 1, axis=2) * np.float32(0.9))[None])
    write_prediction(tmp_path / "out", "a", layers, grid=Grid(geometry, {1: 1}))
    found = evaluate(tmp_path / "out", {"a": tmp_path / "seg.dcm"}, labels={1: 1}).scores[0]
    assert found.unit == "mm"
    assert found.metrics["hd95"] == pytest.approx(2.5, abs=1e-4)  # one slice
    assert found.metrics["dice"] == pytest.approx(0.8)


def test_values_that_are_no_labels_are_said(tmp_path, capsys):
    """As training says it: else a mask of 0 and 255, scored by labels 3, has no foreground without a word."""
    Image.fromarray(np.uint8([[0, 255, 3]])).save(tmp_path / "x.png")
    assert read_truth(tmp_path / "x.png", 2, {3: 1}).mask(1).tolist() == [[False, False, True]]
    assert capsys.readouterr().err.endswith("x.png: holds the values 255, which are not labels: background\n")


def test_a_probability_on_another_grid_is_refused(tmp_path):
    """Of a mask that is on the ground truth's."""
    labels, affine = np.zeros((6, 5, 4), np.uint8), np.diag([1, 2, 3, 1.0])
    labels[1:4, 1:4, 1:3] = 1
    turned = affine.copy()
    turned[0] = [-1, 0, 0, 5]
    truth = write(tmp_path / "truth/a.nii.gz", labels, affine)
    write(tmp_path / "out/a.nii.gz", labels, affine)
    write(tmp_path / "out/a_prob.nii.gz", labels.astype(np.float32), affine)
    assert evaluate(tmp_path / "out", {"a": truth}).summaries["brier"].mean == 0
    write(tmp_path / "out/a_prob.nii.gz", labels[::-1].astype(np.float32), turned)
    with pytest.raises(InputError, match=r"a_prob\.nii\.gz: has another grid than its ground truth"):
        evaluate(tmp_path / "out", {"a": truth})


def test_a_value_below_0_is_named(tmp_path):
    truth = write(tmp_path / "a.nii.gz", np.int16([[[0, 1], [-1, 1]]]))
    with pytest.raises(InputError, match=r"a\.nii\.gz: holds class -1, but"):
        read_truth(truth)
