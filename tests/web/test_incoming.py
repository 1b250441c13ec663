import base64

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.spec import DataSpec
from medsegdiff.web.incoming import Bounds, case_of, example, files_of, truth_of
from tests.data.volumes import ball, write
from tests.dicom_series import maker

GREY = DataSpec(1, "150..550", {}, False)
BOUNDS = Bounds(1, 1)


def sent(*paths):
    return {path.name: base64.b64encode(path.read_bytes()).decode() for path in paths}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(path)
    return path


def test_a_picture_has_its_own_name_and_bytes(picture, tmp_path):
    case = case_of(sent(picture), tmp_path / "in", BOUNDS, DataSpec())
    assert case.id == "photo" and case.image.read_bytes() == picture.read_bytes()


def test_channels_are_one_volume(tmp_path):
    paths = [write(tmp_path / f"v_{number:04}.nii.gz", ball()[0]) for number in range(2)]
    case = case_of(sent(*paths), tmp_path / "in", BOUNDS, DataSpec(2, "150..550", {}, False))
    assert case.id == "v" and [path.name for path in case.channels] == [path.name for path in paths]


def test_a_series_is_known_by_what_its_files_hold(tmp_path):
    folder, *_ = maker(tmp_path)()
    paths = [path.rename(path.with_name(f"IM{number}")) for number, path in enumerate(sorted(folder.iterdir()))]
    case = case_of(sent(*paths), tmp_path / "in", BOUNDS, GREY)
    assert case.id == "series" and len(list(case.image.iterdir())) == len(paths)
    alone = case_of(sent(paths[0]), tmp_path / "one", BOUNDS, GREY)
    assert alone.image.name == "IM0.dcm"


def test_a_ground_truth_is_of_the_same_kind(picture, tmp_path):
    image, labels = ball()
    image, labels = write(tmp_path / "v.nii.gz", image), write(tmp_path / "v-seg.nii.gz", np.uint8(labels > 0))
    case = case_of(sent(image), tmp_path / "in", BOUNDS, GREY)
    truth = truth_of(sent(labels), tmp_path / "true", BOUNDS, case, GREY, 2)
    assert truth.shape == (10, 24, 20) and truth.any()
    with pytest.raises(InputError, match="a volume needs a volume"):
        truth_of(sent(picture), tmp_path / "other", BOUNDS, case, GREY, 2)
    with pytest.raises(InputError, match="a second ground truth"):
        truth_of(sent(labels, picture), tmp_path / "both", BOUNDS, case, GREY, 2)


def test_an_example_is_a_picture(tmp_path):
    assert Image.open(example("generated 1", tmp_path).image).size == (256, 256)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "files: none"),
        ({"../x.png": "AAAA"}, "'../x.png': cannot be a file's name"),
        ({"": "AAAA"}, "cannot be a file's name"),
        ({"x" * 300: "AAAA"}, "cannot be a file's name"),
        ({"x.png": None}, "x.png: more than the 1 MB"),
        ({"x.png": "A" * 1_400_000}, "x.png: more than the 1 MB"),
        ({"x.png": "no base64!"}, "x.png: is not base64"),
        ({"x.png": "AAAA", "y.png": "AAAA"}, "several images"),
        ({"x.png": 5}, "files: not an object"),
        ("x.png", "files: not an object"),
    ],
)
def test_what_cannot_be_one_image_is_refused(files, message, tmp_path):
    with pytest.raises(InputError, match=message):
        case_of(files, tmp_path, BOUNDS, DataSpec())


def test_voxels_are_counted_by_the_header(tmp_path):
    path = write(tmp_path / "v.nii.gz", np.zeros((120, 100, 100), np.uint8))
    with pytest.raises(InputError, match="120 x 100 x 100, more than the 1 million pixels"):
        case_of(sent(path), tmp_path / "in", BOUNDS, GREY)


@pytest.mark.parametrize("text", ["[1]", "{", "1"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(InputError, match="not an object"):
        files_of(text)
