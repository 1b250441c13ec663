"""From files to what the network sees: volumes, several channels, labels."""

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case, from_files
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.labels import parse_labels
from medsegdiff.io.volumes import read_volume, to_slices
from tests.data.volumes import OBLIQUE, ball, write


def prepared(cases, tmp_path, size=16, **options):
    return prepare(cases, size, tmp_path / "cache", progress=False, **options)


@pytest.fixture
def volume(tmp_path):
    """A case of two channels in two files, its labels 0, 1 and 4."""
    first, labels = ball()
    second, _ = ball(seed=1)
    paths = [write(tmp_path / f"a_000{place}.nii.gz", image) for place, image in enumerate((first, second))]
    return Case("a", tuple(paths), write(tmp_path / "a-seg.nii.gz", np.uint8([0, 1, 4])[labels]))


SPEC = DataSpec(2, "z-score", {1: 1, 4: 2}, colour=False)


def test_a_volume_is_its_slices(volume, tmp_path):
    found = prepared([volume], tmp_path, spec=SPEC)
    assert found.ids == [f"a:{number}" for number in range(10)]
    assert (found.num_classes, found.original_sizes[0]) == (3, (24, 20))
    assert found.image(4).shape == (2, 16, 16)
    assert 0 <= found.image(4).min() < 0.5 < 0.6 < found.image(4).max() <= 1
    values, geometry = read_volume(volume.mask)
    seen = to_slices(values, geometry)
    for number in range(10):
        expected = np.array(Image.fromarray(seen[number]).resize((16, 16), Image.NEAREST))
        np.testing.assert_array_equal(found.mask(number), np.stack([expected == 1, expected == 4]))
    np.testing.assert_allclose(found.shares, [[mask.mean() for mask in found.mask(n)] for n in range(10)])
    other = prepared([volume], tmp_path, spec=DataSpec(2, "z-score", {1: 1, 4: 2}, False, "sagittal"))
    assert (len(other), other.original_sizes[0]) == (20, (10, 24))
    assert other.fingerprint != found.fingerprint


def test_one_file_may_have_all_channels(tmp_path):
    image, labels = ball(channels=3)
    case = Case("b", (write(tmp_path / "b.nii.gz", image),), write(tmp_path / "m.nii.gz", labels))
    found = prepared([case], tmp_path, spec=DataSpec(3, "z-score", {1: 1, 2: 2}, False))
    assert found.image(0).shape == (3, 16, 16)
    with pytest.raises(InputError, match=r"b\.nii\.gz: has 3 channels, and 2 are read"):
        prepared([case], tmp_path, spec=SPEC)


def test_blank_slices_are_left_out_on_request(tmp_path):
    image, labels = ball()
    image[..., :3] = 0
    case = Case("a", (write(tmp_path / "a.nii.gz", image),), write(tmp_path / "m.nii.gz", labels))
    spec = DataSpec(1, "z-score", {1: 1, 2: 2}, False)
    found = prepared([case], tmp_path, spec=spec, skip_blank=True)
    assert found.ids == [f"a:{number}" for number in range(3, 10)]
    assert found.depth(0) == 10
    assert len(prepared([case], tmp_path, spec=spec)) == 10


def test_another_grid_is_refused(volume, tmp_path):
    moved = OBLIQUE.copy()
    moved[:3, 3] += 5
    values = read_volume(volume.mask).values
    write(volume.mask, values, moved)
    with pytest.raises(
        InputError, match=r"a-seg\.nii\.gz: has another grid than its image .*a_0000.*: its corners lie"
    ):
        prepared([volume], tmp_path, spec=SPEC)
    write(volume.channels[1], values[:-1])
    with pytest.raises(InputError, match=r"a_0001\.nii\.gz: has another grid than .*: 19 x 24 x 10 voxels"):
        prepared([volume], tmp_path, spec=SPEC)


def test_values_that_are_no_labels_are_background_and_said(volume, tmp_path, capsys):
    found = prepared([volume], tmp_path, spec=DataSpec(2, "z-score", {4: 1}, False))
    assert found.num_classes == 2
    assert "a-seg.nii.gz: holds the values 1, which are not labels: background" in capsys.readouterr().err


def test_a_class_that_never_occurs_is_said(volume, tmp_path, capsys):
    prepared([volume], tmp_path, spec=DataSpec(2, "z-score", {1: 1, 4: 2, 9: 3}, False))
    assert "class 3 occurs in no mask, and counts in no mean" in capsys.readouterr().err


def test_three_levels_are_classes_by_their_labels(tmp_path):
    """As of the optic disc and cup: 255 outside, 128 and 0 inside."""
    levels = np.full((12, 10), 255, np.uint8)
    levels[2:9, 2:8] = 128
    levels[4:7, 4:6] = 0
    Image.fromarray(levels).save(tmp_path / "m.bmp")
    Image.new("RGB", (10, 12)).save(tmp_path / "a.png")
    case = Case("a", (tmp_path / "a.png",), tmp_path / "m.bmp")
    for text in ("128:1,0:2,255:0", "128,0"):
        found = prepared([case], tmp_path, 8, spec=DataSpec(labels=parse_labels(text)))
        expected = np.array(Image.fromarray(levels).resize((8, 8), Image.NEAREST))
        np.testing.assert_array_equal(found.mask(0), np.stack([expected == 128, expected == 0]))


def test_12_bits_in_16_are_not_black(tmp_path):
    values = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    case = Case("a", (tmp_path / "a.png",))
    found = prepared([case], tmp_path, 32, spec=DataSpec(1, "0..4095", colour=False))
    np.testing.assert_allclose(found.image(0)[0], values / 4095, atol=1e-4)


def test_channels_of_pictures_are_files(tmp_path):
    for place in range(4):
        Image.fromarray(np.full((6, 5), 10 * place, np.uint8)).save(tmp_path / f"a_{place:04d}.png")
    (case,) = from_files([tmp_path], several_channels=True)
    assert case.id == "a"
    found = prepared([case], tmp_path, 4, spec=DataSpec(4, colour=False))
    np.testing.assert_allclose(found.image(0)[:, 0, 0], np.arange(4) * 10 / 255, atol=1e-6)
    Image.new("L", (4, 4)).save(tmp_path / "a_0002.png")
    with pytest.raises(InputError, match=r"a_0002\.png: is of another size than .*a_0000\.png"):
        prepared([case], tmp_path, 4, spec=DataSpec(4, colour=False))


def test_a_spec_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="bright"):
        DataSpec(scaling="bright")


def test_values_that_are_no_numbers_are_said_and_a_volume_of_them_alone_is_refused(tmp_path, capsys):
    image, _ = ball()
    image[:3] = np.nan
    spec = DataSpec(1, "z-score", colour=False)
    found = prepared([Case("a", (write(tmp_path / "a.nii", image),))], tmp_path, spec=spec)
    assert "a.nii: holds values that are not finite" in capsys.readouterr().err
    assert (found.image(4)[0] == 0).any()
    with pytest.raises(InputError, match=r"b\.nii: none of its values is a finite number"):
        prepared([Case("b", (write(tmp_path / "b.nii", image * np.nan),))], tmp_path, spec=spec)


WIDE = DataSpec(1, "0..4095", colour=False)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (
            np.full((8, 9), 200, np.uint8),
            "of 8 bits, where values from 0 to 4095 are read; give an image like those of",
        ),
        (np.full((8, 9, 3), 200, np.uint8), "of 8 bits, where values from 0 to 4095 are read"),
        (np.full((8, 9), 0.5, np.float32), "of fractions up to 1, where values from 0 to 4095 are read"),
    ],
)
def test_a_picture_of_another_depth_than_those_of_training_is_refused(tmp_path, pixels, said):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: {said}"):
        prepared([Case("a", (tmp_path / "a.tif",))], tmp_path, spec=WIDE)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (5000, "holds values up to 5000; those above 4095 are cut off"),
        (4000, ""),
        (250, "holds values up to 250 alone, where 0 to 4095 are expected: it is dark"),
    ],
)
def test_a_picture_that_the_window_does_not_fit_says_so(tmp_path, capsys, top, said):
    Image.fromarray(np.linspace(0, top, 72).astype(np.uint16).reshape(8, 9)).save(tmp_path / f"{top}.png")
    prepared([Case("a", (tmp_path / f"{top}.png",))], tmp_path, spec=WIDE)
    assert capsys.readouterr().err.partition(".png: ")[2].strip() == said


def test_ct_numbers_without_their_offset_are_said(tmp_path, capsys):
    image, _ = ball()
    spec = DataSpec(1, "-160..240", colour=False)
    for name, offset in (("a", 1024), ("b", -200)):
        path = write(tmp_path / f"{name}.nii", np.abs(image) + offset)
        prepared([Case(name, (path,))], tmp_path, spec=spec)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "a.nii: holds no value below 0, where -160 to 240 are expected: CT numbers without their offset?"
    )
