import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.evaluation.predictions import Prediction, find


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def names(paths):
    return [path.name for path in paths]


def test_files_of_one_class(tmp_path):
    touch(tmp_path, "a.b.png", "a.b_prob.png", "a.b_cal.png", *(f"a.b_member{i}.png" for i in range(12)))
    prediction = Prediction(tmp_path / "a.b.png")
    assert names(prediction.probability) == ["a.b_prob.png"]
    assert names(prediction.cal) == ["a.b_cal.png"]
    assert [names(files) for files in prediction.members] == [[f"a.b_member{i}.png"] for i in range(12)]


def test_files_of_several_classes(tmp_path):
    touch(tmp_path, "x.png", "x_prob1.png", "x_prob2.png", "x_cal1.png", "x_cal2.png")
    touch(tmp_path, *(f"x_member{i}_class{c}.png" for i in (0, 1) for c in (1, 2)))
    prediction = Prediction(tmp_path / "x.png", num_classes=3)
    assert names(prediction.probability) == ["x_prob1.png", "x_prob2.png"]
    assert names(prediction.cal) == ["x_cal1.png", "x_cal2.png"]
    assert [names(files) for files in prediction.members] == [
        ["x_member0_class1.png", "x_member0_class2.png"],
        ["x_member1_class1.png", "x_member1_class2.png"],
    ]


def test_without_companions_there_is_the_mask_alone(tmp_path):
    touch(tmp_path, "x.png")
    for num_classes in (2, 4):
        prediction = Prediction(tmp_path / "x.png", num_classes)
        assert (prediction.probability, prediction.cal, prediction.members) == ([], [], [])


def test_a_missing_class_is_named(tmp_path):
    touch(tmp_path, "x.png", "x_prob1.png", "x_prob3.png")
    with pytest.raises(InputError, match=r"x_prob2\.png: no such file, beside x_prob1\.png"):
        _ = Prediction(tmp_path / "x.png", num_classes=4).probability


def test_find_follows_the_order_asked_for_and_knows_published_names(tmp_path):
    touch(tmp_path, "b.png", "a.png", "0000007_output_ens.jpg", "0000008_output_ens.png", "ISIC_0000008.png")
    ids = ["b", "absent", "ISIC_0000007", "ISIC_0000008", "a"]
    found = find(tmp_path, ids)
    assert list(found) == ["b", "ISIC_0000007", "ISIC_0000008", "a"]
    assert names(prediction.path for prediction in found.values()) == [
        "b.png",
        "0000007_output_ens.jpg",
        "ISIC_0000008.png",
        "a.png",
    ]
    assert [prediction.is_published for prediction in found.values()] == [False, True, False, False]
    assert list(find(tmp_path, ids, num_classes=3)) == ["b", "ISIC_0000008", "a"]


@pytest.mark.parametrize(("there", "absent"), [((1,), 0), ((0, 2), 1), ((3, 10), 0)])
@pytest.mark.parametrize(("num_classes", "ends"), [(2, ("",)), (3, ("_class1", "_class2"))])
def test_a_missing_member_is_named(tmp_path, there, absent, num_classes, ends):
    touch(tmp_path, "x[1].png", *(f"x[1]_member{i}{end}.png" for i in there for end in ends))
    with pytest.raises(InputError, match=rf"_member{absent}\*\.png: no such file, beside x\[1\]_member{there[-1]}"):
        _ = Prediction(tmp_path / "x[1].png", num_classes).members


def test_members_of_another_image_are_not_counted(tmp_path):
    touch(tmp_path, "x.png", "x_member0.png", "x_member1_member1.png", "x_members2.png", "xy_member1.png")
    assert [names(files) for files in Prediction(tmp_path / "x.png").members] == [["x_member0.png"]]


def test_predictions_of_other_suffixes_and_challenge_names_are_found(tmp_path):
    touch(tmp_path, "a.PNG", "b.tif", "a_prob.png", "a_overlay.png", "a_trace.gif")
    assert {id: found.path.name for id, found in find(tmp_path, ["a", "b"]).items()} == {"a": "a.PNG", "b": "b.tif"}
    touch(tmp_path, "c_segmentation.png", "d_Segmentation.tiff")
    assert list(find(tmp_path, ["c", "d"])) == ["c", "d"]
