from __future__ import annotations

import csv
import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.data.drawing import draw
from medsegdiff.data.layouts import isic
from medsegdiff.data.phantom import is_generated, write_isic
from medsegdiff.io.masks import read_labels, read_mask
from medsegdiff.io.pictures import read_image


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_masks_of_three_classes_are_palette_images_of_indices(tmp_path):
    write_isic(tmp_path / "out", 2, 1, 48, num_classes=3)
    cases = isic.find(tmp_path / "out", "train")
    for index, case in enumerate(cases):
        assert read_image(case.image).shape[:2] == (48, 48)
        _, labels = draw(generator(0, "phantom", 9_000_000 + index), 48, num_classes=3)
        np.testing.assert_array_equal(read_labels(case.mask), labels)
        with Image.open(case.mask) as mask:
            assert mask.mode == "P"
            colours = np.unique(np.asarray(mask.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
        assert len(colours) == 3
        assert min(np.abs(a - b).max() for a in colours for b in colours if (a != b).any()) > 80
    before = contents(tmp_path / "out")
    write_isic(tmp_path / "out", 2, 1, 48, num_classes=3)
    assert contents(tmp_path / "out") == before
    with pytest.raises(InputError, match="other data"):
        write_isic(tmp_path / "out", 2, 1, 48)


@pytest.mark.parametrize("count", [1, 4])
def test_other_numbers_of_classes_are_refused(tmp_path, count):
    with pytest.raises(InputError, match=f"num_classes {count}: .* 2 classes, or 3"):
        write_isic(tmp_path / "out", 1, 1, 48, num_classes=count)
    assert list(tmp_path.iterdir()) == []


def test_layout_is_that_of_the_challenge(tmp_path):
    write_isic(tmp_path / "out", 3, 2, 48)
    train, test = (isic.find(tmp_path / "out", split) for split in ("train", "test"))
    assert [case.id for case in train] == ["ISIC_9000000", "ISIC_9000001", "ISIC_9000002"]
    assert len(test) == 2
    assert not {case.id for case in train} & {case.id for case in test}
    case = train[0]
    folder = tmp_path / "out/Train"
    assert case.image == folder / "ISBI2016_ISIC_Part1_Training_Data/ISIC_9000000.jpg"
    assert case.mask == folder / "ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_9000000_Segmentation.png"
    image, mask = draw(generator(0, "phantom", 9_000_000), 48)
    np.testing.assert_array_equal(read_mask(case.mask) * 255, mask)
    assert np.abs(read_image(case.image).astype(int) - image).mean() < 6  # JPEG
    with (folder / "ISBI2016_ISIC_Part1_Training_GroundTruth.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["", "img", "seg"]


def test_rewriting_gives_the_same_bytes_and_more_images_keep_the_first(tmp_path):
    write_isic(tmp_path / "a", 2, 1, 48, seed=7)
    before = contents(tmp_path / "a")
    write_isic(tmp_path / "a", 2, 1, 48, seed=7)
    assert contents(tmp_path / "a") == before
    write_isic(tmp_path / "b", 3, 1, 48, seed=7)
    larger = contents(tmp_path / "b")
    images = [name for name in before if name.endswith((".jpg", ".png"))]
    assert len(images) == 6
    assert all(larger[name] == before[name] for name in images)


def test_foreign_data_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_isic(out, 1, 1, 48)  # an empty folder is fine
    with pytest.raises(InputError, match="other data"):
        write_isic(out, 2, 1, 48)
    notes = out / "Train/notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match="a file"):
        write_isic(notes, 1, 1, 48)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        write_isic(other, 1, 1, 48)
    assert str(other) in str(caught.value)


def test_all_that_is_there_stays_and_what_has_gone_comes_back(tmp_path):
    out = tmp_path / "out"
    write_isic(out, 2, 1, 48)
    written = contents(out)
    case = isic.find(out, "train")[0]
    (out / "Train" / "notes.txt").write_text("mine")
    (out / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "link").symlink_to(tmp_path / "elsewhere")
    (out / "dangling").symlink_to(tmp_path / "nowhere")
    case.mask.write_bytes(b"corrected by hand")
    case.image.unlink()
    write_isic(out, 2, 1, 48)
    assert case.mask.read_bytes() == b"corrected by hand"
    assert (out / "empty").is_dir()
    assert (out / "link").is_symlink()
    assert (out / "dangling").is_symlink()
    assert set(contents(out)) - set(written) == {"Train/notes.txt"}
    assert contents(out)[str(case.image.relative_to(out))] == written[str(case.image.relative_to(out))]


@pytest.mark.parametrize("kind", ["empty", "link", "dangling"])
def test_an_empty_folder_or_a_link_is_something(tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    if kind == "empty":
        (out / "mine").mkdir()
    else:
        (out / "mine").symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds other data"):
        write_isic(out, 1, 1, 48)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_nothing_is_written_through_a_link(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_isic(out, 1, 1, 48)
    shutil.rmtree(out / "Test")
    elsewhere.mkdir()
    (out / "Test").symlink_to(elsewhere)
    with pytest.raises(InputError, match="leads out of"):
        write_isic(out, 1, 1, 48)
    assert list(elsewhere.iterdir()) == []


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_isic(tmp_path / "out", 1, 1, 48)
    assert list(tmp_path.iterdir()) == []


def test_generated_files_are_known_as_such(tmp_path):
    write_isic(tmp_path / "out", 1, 1, 48)
    case = isic.find(tmp_path / "out", "test")[0]
    assert is_generated(case.image)
    assert is_generated(case.mask)
    assert not is_generated(tmp_path / "elsewhere" / case.image.name)


def test_a_link_that_leads_in_a_circle_is_one_line(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: a file, where a folder was expected"):
        write_isic(tmp_path / "loop", 1, 1, 32)
    assert not is_generated(tmp_path / "loop")
