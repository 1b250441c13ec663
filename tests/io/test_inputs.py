"""Small files of kinds that users really have, each as `../shared/inputs/README.md` says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case, from_files, list_images
from medsegdiff.data.layouts import isic
from medsegdiff.data.spec import DataSpec
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.truth import truth_from_folder
from medsegdiff.io.labels import parse_labels
from medsegdiff.io.masks import read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.io.predictions import check_id

MAKE = Path(__file__).parents[3] / "shared/inputs/make.py"
pytestmark = pytest.mark.skipif(not MAKE.is_file(), reason=f"no {MAKE}")
SCORED = (
    "challenge-name one-bit palette red rgba-shape-in-alpha tiff uint16-1 uint16-255 uint16-65535 uint8-1 uint8-100 "
    "uint8-127 uint8-255 upper-case-suffix"
).split()
UPRIGHT = (60, 100)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    out = tmp_path_factory.mktemp("inputs")
    subprocess.run([sys.executable, MAKE, out], check=True, stdout=subprocess.DEVNULL)
    return out


def pair(folder):
    """The only image of a folder with its mask."""
    (image,), (mask,) = list_images(folder / "images"), list_images(folder / "masks")
    return Case(image.stem, (image,), mask)


def prepared(cases, tmp_path, size=64):
    return prepare(cases, size, tmp_path / "cache", progress=False)


def test_nothing_is_left_out(inputs):
    assert sorted(path.name for path in (inputs / "score").iterdir()) == sorted([*SCORED, "truth"])


@pytest.mark.parametrize("kind", SCORED)
def test_a_perfect_mask_scores_1_however_it_is_stored(inputs, kind):
    for predictions, truth in ((kind, "truth"), ("truth", kind)):  # one reading for both
        report = evaluate(inputs / "score" / predictions, truth_from_folder(inputs / "score" / truth))
        assert report.missing == []
        metrics = report.scores[0].metrics
        assert {metrics[name] for name in ("dice", "iou", "precision", "recall", "published_dice")} == {1}


def test_thin_lines_are_the_same_as_0_1_and_as_0_255(inputs, tmp_path):
    one, full = (prepared([pair(inputs / f"train/lines-{high}")], tmp_path).mask(0)[0] for high in (1, 255))
    np.testing.assert_array_equal(one, full)
    assert full.any(axis=0).sum() >= 8


def test_a_jpeg_mask_keeps_its_foreground(inputs, tmp_path):
    disc = read_mask(inputs / "score/truth/a.png")
    assert abs(read_mask(pair(inputs / "train/jpeg-mask").mask).sum() / disc.sum() - 1) < 0.01


def test_inverted_levels_are_warned_of(inputs, tmp_path, capsys):
    prepared([pair(inputs / "train/inverted-three-levels")], tmp_path)
    said = capsys.readouterr().err
    assert "a.bmp: holds the levels 0, 128, 255; those above one half are foreground" in said
    assert "of the masks' pixels are foreground" in said
    assert "are they inverted?" in said


def test_three_levels_are_the_classes_that_labels_say(inputs, tmp_path):
    case = pair(inputs / "train/inverted-three-levels")
    spec = DataSpec(labels=parse_labels("128,0"))
    disc, cup = prepare([case], 64, tmp_path / "cache", progress=False, spec=spec).mask(0)
    with Image.open(case.mask) as mask:
        levels = np.array(mask.resize((64, 64), Image.NEAREST))
    np.testing.assert_array_equal(disc, levels == 128)
    np.testing.assert_array_equal(cup, levels == 0)
    assert cup.any()


def test_the_same_name_in_two_folders_is_two_cases(inputs):
    folder = inputs / "train/same-name/images"
    assert [case.id for case in from_files([folder])] == ["p1_001", "p2_001"]
    assert [case.id for case in from_files([folder / "p1", folder / "p2"])] == ["p1_001", "p2_001"]


def test_a_mask_of_another_size_is_refused_in_training_alone(inputs, tmp_path):
    case = pair(inputs / "train/one-pixel-off")
    with pytest.raises(InputError, match="the mask is 100 x 59 pixels"):
        prepared([case], tmp_path)
    assert prepared([Case(case.id, case.channels)], tmp_path).original_sizes == [UPRIGHT]


def test_a_name_that_is_not_utf8_is_refused_before_any_work(inputs):
    with pytest.raises(InputError, match="its name is not UTF-8"):
        from_files([inputs / "pictures"])


def test_pictures_are_visible_and_upright_and_their_names_work(inputs, tmp_path, capsys):
    pictures = [path for path in list_images(inputs / "pictures") if path.name.isprintable()]
    assert len(pictures) == 11
    cases = from_files(pictures)
    for case in cases:
        check_id(case.id)
        pixels = read_image(case.image)
        assert pixels.min() < 100
        assert pixels.max() > 150
    said = capsys.readouterr().err
    for name in (
        "three-pages.tif: has 3 pages",
        "animated.gif: has 3 pages",
        "twelve-bit-in-sixteen.png: holds 12-bit",
    ):
        assert name in said
    sizes = zip(cases, prepared(cases, tmp_path).original_sizes)
    assert all((size == UPRIGHT) != case.id.startswith("turned") for case, size in sizes)


def test_superpixels_are_not_segmented(inputs):
    assert [case.id for case in from_files([inputs / "pictures-with-superpixels"])] == ["ISIC_0000001"]


def test_a_table_from_windows_works(inputs, tmp_path):
    cases = isic.find(inputs / "csv/windows", "train")
    assert [case.id for case in cases] == ["a"]
    assert prepared(cases, tmp_path).mask(0).any()
