import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.fingerprint import measure
from tests.data.volumes import ball, write


@pytest.fixture
def volumes(tmp_path):
    """A function that writes three volumes, their values changed by `change`."""

    def make(change=lambda image: image, channels=1):
        cases = []
        for number in range(3):
            image, labels = ball(channels=channels, seed=number)
            path, mask = tmp_path / f"{number}.nii.gz", tmp_path / f"{number}-mask.nii.gz"
            write(path, change(image))
            cases.append(Case(str(number), (path,), write(mask, labels * np.uint8(2)), f"p{number // 2}"))
        return cases

    return make


def test_volumes_are_normalised_one_by_one_and_their_labels_are_the_masks(volumes):
    found = measure(volumes(channels=2), progress=False)
    assert (found.cases, found.patients, found.kind, found.channels, found.colour) == (3, 2, "volumes", 2, False)
    assert found.shape == (20, 24, 10)
    spec = found.spec()
    assert (spec.channels, spec.scaling, spec.labels) == (2, "z-score", {2: 1, 4: 2})
    assert found.intensities[0]["mean"] == pytest.approx(500, abs=10)  # of the foreground
    assert found.lines()[0].startswith("3 volumes of 2 patients, 2 channels, median 20 x 24 x 10")
    assert json.loads(json.dumps(found.plain()))["values"].keys() == {"2", "4"}


def test_one_value_here_and_another_there_is_said_where_labels_are_not_known(volumes, capsys):
    cases = volumes()
    measure(cases, progress=False).spec()
    assert "here" not in capsys.readouterr().err  # both occur in one mask
    for case, value in zip(cases, (1, 255, 1)):
        write(case.mask, (ball()[1] > 0) * np.uint8(value))
    found = measure(cases, progress=False)
    found.spec(labels={1: 1, 255: 2})
    found.with_labels().spec()
    assert "here" not in capsys.readouterr().err
    found.spec()
    said = "each mask has one value besides 0, here 1, there 255, and these are two classes"
    assert f"{said}; if both mean one, give labels 1:1,255:1" in capsys.readouterr().err


def test_an_image_is_no_mask(volumes):
    cases = volumes()
    labels = np.arange(20 * 24 * 10, dtype=np.int16).reshape(20, 24, 10) % 300
    write(cases[0].mask, labels)
    found = measure(cases, progress=False)
    assert found.lines()[-1].endswith("and 279 more of the voxels")
    with pytest.raises(InputError, match="the masks hold 299 values besides 0, and at most 255 can be classes"):
        found.spec()
    assert found.spec(labels={2: 1}).labels == {2: 1}


def test_ct_numbers_are_cut_to_a_window_over_the_foreground(volumes):
    spec = measure(volumes(lambda image: image - 1200), progress=False).spec()
    low, high = map(float, spec.scaling.split(".."))
    assert -780 < low < -730
    assert -670 < high < -630


def pictures(folder, pixels, count=2):
    cases = []
    for number in range(count):
        Image.fromarray(pixels + number).save(folder / f"{number}.png")
        cases.append(Case(str(number), (folder / f"{number}.png",)))
    return cases


@pytest.mark.parametrize(
    ("pixels", "channels", "scaling", "colour"),
    [
        (np.full((6, 5, 3), 99, np.uint8), 3, "8-bit", True),
        (np.full((6, 5), 99, np.uint8), 1, "8-bit", False),
        (np.full((6, 5), 3000, np.uint16), 1, "0..4095", False),
        (np.full((6, 5), 40000, np.uint16), 1, "0..65535", False),
    ],
    ids=["RGB", "grey", "12 bits in 16", "16 bits"],
)
def test_pictures_by_their_channels_and_bits(tmp_path, pixels, channels, scaling, colour):
    found = measure(pictures(tmp_path, pixels), progress=False)
    spec = found.spec()
    assert (spec.channels, spec.scaling, spec.colour, dict(spec.labels)) == (channels, scaling, colour, {})
    assert found.shape == (6, 5)


@pytest.mark.parametrize("other", [np.uint16(40000), np.float32(0.5)])
def test_pictures_of_several_depths_are_read_each_by_its_own(tmp_path, other):
    """In a window of 16 bits those of 8 bits would be black."""
    cases = []
    for number, level in enumerate((np.uint8(99), other)):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(np.full((6, 5), level)).save(path)
        cases.append(Case(str(number), (path,)))
    assert measure(cases, progress=False).spec().scaling == "8-bit"
