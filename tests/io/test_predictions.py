import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import MANIFEST
from medsegdiff.io import predictions
from medsegdiff.io.masks import read_mask
from medsegdiff.io.predictions import (
    Grid,
    Maps,
    check_id,
    class_palette,
    find_predictions,
    read_probability,
    write_prediction,
)
from medsegdiff.io.volumes import read_volume
from medsegdiff.masks.decision import decide
from medsegdiff.masks.resizing import resize_probability


@pytest.fixture
def probability():
    return np.random.default_rng(0).random((1, 7, 5), dtype=np.float32)


def seen(folder):
    return {path.name for path in folder.iterdir() if path.name != MANIFEST}


def test_written_files_read_back(tmp_path, probability):
    std, cal = probability / 2, probability**2
    path = write_prediction(tmp_path, "a.b_c", Maps(probability, std, cal, [probability, 1 - probability]))
    assert path == tmp_path / "a.b_c.png"
    np.testing.assert_array_equal(read_mask(path), probability[0] > 0.5)
    half_step = 0.5 / 65535 + 1e-7
    for name, expected in {
        "prob": probability,
        "std": std,
        "cal": cal,
        "entropy": -probability * np.log2(probability) - (1 - probability) * np.log2(1 - probability),
        "member0": probability,
        "member1": 1 - probability,
    }.items():
        read = read_probability(tmp_path / f"a.b_c_{name}.png")
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, expected[0], atol=half_step, rtol=0)


def test_members_of_an_earlier_ensemble_do_not_stay(tmp_path, probability):
    write_prediction(tmp_path, "x", Maps(probability, members=[probability] * 12))
    write_prediction(tmp_path, "x_1", Maps(probability, members=[probability]))
    write_prediction(tmp_path, "x", Maps(probability, members=[probability] * 2))
    assert {path.name for path in tmp_path.glob("x_member*")} == {"x_member0.png", "x_member1.png"}
    assert (tmp_path / "x_1_member0.png").exists()


def test_nothing_of_an_earlier_run_stays(tmp_path, probability):
    several = np.concatenate([probability, 1 - probability]) / 2

    def draw(folder):
        for name in ("x_overlay.png", "x_trace.png", "x_trace.gif"):
            (folder / name).touch()

    write_prediction(tmp_path, "x", Maps(several, several, several, [several]), draw=draw)
    others = {"x_1.png", "x_1_overlay.png", "x_notes.txt", "x_prob.csv", "y_trace.gif"}
    for name in others:
        (tmp_path / name).touch()
    write_prediction(tmp_path, "x", Maps(probability))
    assert seen(tmp_path) == {"x.png", "x_prob.png"} | others


@pytest.mark.parametrize("name", ["x.png", "x_prob.png", "x_member7.png", "x_trace.gif"])
def test_a_file_of_somebody_else_s_is_neither_replaced_nor_removed(tmp_path, probability, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: not written by sample"):
        write_prediction(tmp_path, "x", Maps(probability))
    assert seen(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_failure_leaves_the_earlier_prediction_whole(tmp_path, probability, monkeypatch):
    write_prediction(tmp_path, "x", Maps(probability))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(path, picture):
        raise InputError("disk full")

    monkeypatch.setattr(predictions, "write_png", refuse)
    with pytest.raises(InputError, match="disk full"):
        write_prediction(tmp_path, "x", Maps(1 - probability))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_formats_of_the_files(tmp_path):
    write_prediction(tmp_path, "x", Maps(np.array([[[0, 0.5], [0.75, 1]]], np.float32)))
    with Image.open(tmp_path / "x.png") as mask:
        assert (mask.format, mask.mode) == ("PNG", "L")
        assert np.asarray(mask).tolist() == [[0, 0], [255, 255]]
    with Image.open(tmp_path / "x_prob.png") as picture:
        assert np.asarray(picture).tolist() == [[0, 32768], [49151, 65535]]
    assert seen(tmp_path) == {"x.png", "x_prob.png"}


def test_several_classes_are_indices_with_a_palette_and_a_file_each(tmp_path):
    probability = np.float32([[[0.2, 0.6, 0.3]], [[0.1, 0.3, 0.5]]])
    write_prediction(tmp_path, "x", Maps(probability, probability / 4, probability / 2, [probability]))
    with Image.open(tmp_path / "x.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask).tolist() == [[0, 1, 2]]
        assert mask.getpalette()[:9] == class_palette(3)
    for channel in (0, 1):
        for name, scale in (("prob{}", 1), ("std{}", 0.25), ("cal{}", 0.5), ("member0_class{}", 1)):
            read = read_probability(tmp_path / f"x_{name.format(channel + 1)}.png")
            np.testing.assert_allclose(read, scale * probability[channel], atol=1e-5)
    assert read_probability(tmp_path / "x_entropy.png")[0, 2] == 1  # the class least certain, at one half
    assert list(find_predictions(tmp_path)) == ["x"]


def test_classes_have_colours_of_their_own():
    colours = np.array(class_palette(22)).reshape(-1, 3)
    assert (colours[0] == 0).all()
    assert len(np.unique(colours, axis=0)) == 22


COMPANIONS = ["x_prob", "x_prob2", "x_std", "x_entropy", "x_cal", "x_overlay", "x_trace", "x_member", "x_member12"]


@pytest.mark.parametrize("id", ["../x", "a/b", "", ".x", *COMPANIONS, "x_member0_class2"])
def test_ids_that_cannot_name_a_prediction(tmp_path, probability, id):
    with pytest.raises(InputError, match="rename it"):
        write_prediction(tmp_path, id, Maps(probability))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("id", ["\udcb2\udca1", "n" * 232, "病" * 78, "a\nb"])
def test_ids_that_are_not_utf8_too_long_or_not_printable(id):
    with pytest.raises(InputError, match="rename it") as caught:
        check_id(id)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", ["n" * 231, "病" * 77, "plain copy (1).v2"])
def test_long_names_work(tmp_path, probability, id):
    assert write_prediction(tmp_path, id, Maps(probability, members=[probability])).is_file()
    assert list(find_predictions(tmp_path)) == [id]


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1, np.inf])
def test_values_that_are_no_probability(tmp_path, probability, value):
    std = probability.copy()
    std[0, 0, 0] = value
    with pytest.raises(InputError, match=r"x_std\.png: values outside"):
        write_prediction(tmp_path, "x", Maps(probability, std))
    assert not any(tmp_path.iterdir())


def test_shapes_must_agree(tmp_path, probability):
    with pytest.raises(ValueError, match="x_std"):
        write_prediction(tmp_path, "x", Maps(probability, probability.swapaxes(1, 2)))
    with pytest.raises(ValueError, match="x_prob"):
        write_prediction(tmp_path, "x", Maps(probability[0]))


def test_find_predictions_knows_masks_from_their_companions(tmp_path, probability):
    for id in ("b_1", "a.2", "probe_stdx", "x_prob_1"):
        write_prediction(tmp_path, id, Maps(probability, probability, members=[probability]))
    for other in ("a.2_overlay.png", ".hidden.png", "notes.txt", "a.2_member3.png"):
        (tmp_path / other).touch()
    found = find_predictions(tmp_path)
    assert list(found) == ["a.2", "b_1", "probe_stdx", "x_prob_1"]
    assert found["a.2"] == tmp_path / "a.2.png"


def test_find_predictions_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        find_predictions(tmp_path / "absent")


def test_eight_bit_and_colour_pictures_are_probabilities_too(tmp_path):
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).convert("RGB").save(tmp_path / "x.png")
    np.testing.assert_allclose(read_probability(tmp_path / "x.png"), [[0, 0.2, 1]], rtol=1e-6)


@pytest.mark.parametrize("read", [read_probability, read_mask])
def test_unreadable_files_are_named(tmp_path, probability, read):
    whole = write_prediction(tmp_path, "x", Maps(probability)).read_bytes()
    path = tmp_path / "bad.png"
    for content, reason in ((b"", "empty"), (whole[: len(whole) // 2], "damaged"), (b"text", "not an image")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"bad\.png: .*{reason}"):
            read(path)
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        read(tmp_path / "absent.png")


def test_maps_are_resized_channel_by_channel(probability):
    two = np.concatenate([probability, 1 - probability])
    maps = Maps(two, None, two, [two]).resized((14, 10))
    assert maps.std is None
    for array in (maps.probability, maps.cal, maps.members[0]):
        assert array.shape == (2, 14, 10)
        np.testing.assert_array_equal(array[1], resize_probability(two[1], (14, 10)))


def test_several_classes_do_not_pass_for_a_binary_mask(tmp_path):
    probability = np.float32([[[0.9, 0.1]], [[0.05, 0.8]]])
    path = write_prediction(tmp_path, "x", Maps(probability))
    with pytest.raises(InputError, match=r"x\.png: holds several classes; give num_classes"):
        read_mask(path)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_mask_may_be_given_and_the_probability_stays(tmp_path, channels):
    probability = np.random.default_rng(0).random((channels, 7, 5), np.float32) / channels
    mask = np.random.default_rng(1).integers(0, channels + 1, (7, 5), np.uint8)
    path = write_prediction(tmp_path, "x", Maps(probability), mask)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), mask * np.uint8(255 if channels == 1 else 1))
    first = read_probability(tmp_path / ("x_prob.png" if channels == 1 else "x_prob1.png"))
    np.testing.assert_allclose(first, probability[0], atol=1e-5)


def test_of_dicom_images_there_is_a_segmentation_too(make_series, tmp_path):
    """Another program finds the NIfTI mask, and the segmentation, on the images."""
    folder = make_series()[0]
    volume = read_volume(folder)
    probability = np.zeros((2, *volume.geometry.shape), np.float32)
    probability[0, 3:9, 2:7, 1:6], probability[1, 6:8, 8:11, 3:5] = 0.9, 0.8
    written = write_prediction(tmp_path / "out", "a", Maps(probability), grid=Grid(volume.geometry, {4: 1, 9: 2}))
    assert {path.name for path in written.parent.iterdir()} >= {"a.nii.gz", "a.dcm"}
    assert find_predictions(written.parent) == {"a": written}
    segments = read_volume(written.with_name("a.dcm"), folder).values
    np.testing.assert_array_equal(segments, decide(probability))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image, mask = reader.Execute(), SimpleITK.ReadImage(str(written))
    on_image = SimpleITK.Resample(mask, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(on_image).T, np.array([0, 4, 9])[segments])


def test_images_that_no_segmentation_can_refer_to_have_nifti_alone(make_series, tmp_path, capsys):
    folder = make_series(change=lambda _, slice_: delattr(slice_, "StudyInstanceUID"))[0]
    geometry = read_volume(folder).geometry
    probability = np.full((1, *geometry.shape), 0.7, np.float32)
    written = write_prediction(tmp_path / "out", "a", Maps(probability), grid=Grid(geometry, {1: 1}))
    assert not written.with_name("a.dcm").exists()
    assert "no segmentation can refer to these images" in capsys.readouterr().err
