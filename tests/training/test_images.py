"""What a training is given: configurations that are completed by the dataset."""

import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.config.run import RunConfig
from medsegdiff.data.layouts import find_test
from medsegdiff.data.phantom import write_isic
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.dicom.segmentation import write_segmentation
from medsegdiff.io.volumes import read_volume
from medsegdiff.training.images import find_images, open_images
from tests.data.volumes import ball, write
from tests.dicom_series import SHAPE


@pytest.fixture
def volumes(tmp_path):
    """Ten volumes with the labels 1 and 2."""
    for number in range(10):
        image, labels = ball(seed=number)
        write(tmp_path / f"data/images/{number}.nii.gz", image)
        write(tmp_path / f"data/labels/{number}.nii.gz", labels)
    return tmp_path / "data"


def images(root, **options):
    return find_images(RunConfig.from_flat({"data_dir": str(root), "image_size": 32, **options}))


def test_volumes_complete_the_configuration(volumes, capsys):
    found = images(volumes)
    config = found.config
    assert (config.network.image_channels, config.network.num_classes) == (1, 3)
    assert (config.data.data_name, config.data.labels, config.data.scaling) == ("volume", "1:1,2:2", "z-score")
    assert config.spec == DataSpec(1, "z-score", {1: 1, 2: 2}, False)
    assert RunConfig.from_flat(json.loads(json.dumps(config.flat()))).spec == config.spec
    assert images(volumes, **{**config.flat(), "data_dir": str(volumes)}).config == config  # as when it is continued
    assert (len(found.split.train), len(found.split.test), len(found.cases)) == (8, 2, 8)
    assert found.count == 80
    assert json.loads(json.dumps(found.about))["fingerprint"]["cases"] == 10
    said = capsys.readouterr().err
    assert "fingerprint: so they are read with scaling z-score, labels 1:1,2:2" in said
    assert "note: 2 of 10 cases are kept for testing" in said


def test_what_is_given_counts(volumes, capsys):
    config = images(volumes, labels="2", scaling="percentile", axis="coronal").config
    assert config.spec == DataSpec(1, "percentile", {2: 1}, False, "coronal")
    assert config.network.num_classes == 2
    for path in volumes.glob("labels/*"):
        write(path, (ball()[1] > 0) * np.uint8(int(path.name[0]) % 2 + 1))
    assert images(volumes, labels="1:1,2:1").config.network.num_classes == 2
    assert "if both mean one" not in capsys.readouterr().err
    assert images(volumes).config.network.num_classes == 3
    assert "if both mean one, give labels 1:1,2:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": 4}, "num_classes 4: the dataset has 3"),
        ({"image_channels": 5}, "image_channels 5: the dataset has 1"),
        ({"class_cond": True}, "class_cond True"),
        ({"augment": True, "augment_hair": 0.5}, "are drawn in colour"),
        ({"labels": "whole"}, 'labels "whole"'),
        ({"split": "none.json"}, "none.json: no such file"),
        ({"data_name": "brats"}, "no folder with files such as ID_t1.nii.gz"),
    ],
)
def test_what_contradicts_the_dataset_is_named(volumes, options, said):
    with pytest.raises(InputError) as caught:
        images(volumes, **options)
    assert said in str(caught.value)


def test_isic_is_read_as_ever(tmp_path, capsys):
    write_isic(tmp_path / "isic", 4, 1, 48)
    found = images(tmp_path / "isic")
    assert found.config.spec == DataSpec() == RunConfig().spec
    assert (found.config.data.data_name, found.config.data.scaling, found.config.data.labels) == ("isic", "", "")
    assert (found.split.test, found.fingerprint) == ([], None)
    assert capsys.readouterr().err == ""


def test_without_test_cases_anywhere_those_of_validation_are_tested_on(volumes, tmp_path):
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["0", "1"], "val": ["2"]}]))
    found = images(volumes, split=str(tmp_path / "folds.json"))
    assert found.split == (["0", "1"], ["2"], ["2"])
    assert [case.id for case in find_test(volumes, kept=found.split.test)] == ["2"]
    for kind in ("images", "labels"):
        (volumes / "test" / kind).mkdir(parents=True)
        (volumes / "train" / kind).mkdir(parents=True)
        for path in (volumes / kind).iterdir():
            path.rename(volumes / ("test" if path.name[0] == "9" else "train") / kind / path.name)
        (volumes / kind).rmdir()
    assert images(volumes, split=str(tmp_path / "folds.json")).split.test == []
    assert [case.id for case in find_test(volumes)] == ["9"]


def test_a_fold_may_test_on_what_the_dataset_has_to_validate_with(volumes):
    for part in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (volumes / part / kind).mkdir(parents=True)
    for path in [*volumes.glob("images/*"), *volumes.glob("labels/*")]:
        path.rename(volumes / {"8": "val", "9": "test"}.get(path.name[0], "train") / path.parent.name / path.name)
    for kind in ("images", "labels"):
        (volumes / kind).rmdir()
    tests = [images(volumes, folds=3, fold=fold).split.test for fold in range(3)]
    assert [sorted(case.id for case in find_test(volumes, kept=test)) for test in tests] == [sorted(t) for t in tests]
    assert sorted(id for test in tests for id in test) == [str(number) for number in range(9)]


def test_a_file_splits_and_validation_is_what_it_says(volumes, tmp_path):
    split = {"train": ["0", "1", "2"], "validation": ["3"], "test": ["4"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    options = {"split": str(tmp_path / "split.json"), "cache_dir": str(tmp_path / "cache"), "val_images": 0}
    found = images(volumes, **options, out_dir=str(tmp_path / "run"), val_interval=5)
    assert found.split._asdict() == split
    (tmp_path / "several.json").write_text(json.dumps([{}, {}, split]))
    assert images(volumes, split=str(tmp_path / "several.json"), fold=2).split == found.split
    with pytest.raises(InputError, match="folds 3: split says which cases are tested on"):
        images(volumes, split=str(tmp_path / "several.json"), folds=3)
    for decided, given in (("folds", {"folds": 3}), ("split", options)):
        with pytest.raises(InputError, match=f"test_fraction 0.5: {decided} says what is tested on; leave it out"):
            images(volumes, test_fraction=0.5, **given)
    training, validation = open_images(found)
    assert set(training.groups) == {"0", "1", "2"}
    assert set(validation.groups) == {"3"}
    assert training.mask(4).shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("out", "refused"),
    [("images", True), ("images/run", True), ("masks/run", True), ("run", False)],
)
def test_a_run_is_not_written_among_pictures(tmp_path, out, refused):
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            values = np.uint8(255 * np.eye(32)) if name == "masks" else np.zeros((32, 32, 3), np.uint8) + number
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    found = images(tmp_path / "data", out_dir=str(tmp_path / "data" / out), cache_dir=str(tmp_path / "cache"))
    if not refused:
        open_images(found)
        return
    with pytest.raises(InputError, match=r"out_dir .*: lies in .*, a folder of images or masks; give another"):
        open_images(found)
    assert not (tmp_path / "cache").exists()


def test_a_run_below_volumes_disturbs_nobody(volumes, tmp_path):
    cache = str(tmp_path / "cache")
    with pytest.raises(InputError, match="out_dir"):
        open_images(images(volumes, out_dir=str(volumes / "images"), cache_dir=cache))
    open_images(images(volumes, out_dir=str(volumes / "images/run"), cache_dir=cache))


def test_a_run_may_lie_beside_series(make_series, tmp_path):
    folder, _, _ = make_series("a")
    (tmp_path / "data").mkdir()
    folder = folder.rename(tmp_path / "data/a")
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 2:7, 1:6] = 1
    write_segmentation(tmp_path / "data/mask.dcm", labels, read_volume(folder).geometry)
    for out in ("data/run", "data/a"):
        found = images(tmp_path / "data", out_dir=str(tmp_path / out), cache_dir=str(tmp_path / "cache"))
        if out == "data/run":
            open_images(found)
            continue
        with pytest.raises(InputError, match="out_dir"):
            open_images(found)


def test_folds_test_every_case_once(volumes):
    tests = [images(volumes, folds=5, fold=fold).split.test for fold in range(5)]
    assert sorted(np.concatenate(tests)) == sorted(str(number) for number in range(10))


def test_of_one_image_alone_none_is_kept_for_testing(tmp_path, capsys):
    image, labels = ball()
    write(tmp_path / "data/images/a.nii.gz", image)
    write(tmp_path / "data/labels/a.nii.gz", labels)
    found = images(tmp_path / "data")
    assert found.split == (["a"], [], [])
    assert "note: there is only one image, or patient, so none is kept for testing" in capsys.readouterr().err
