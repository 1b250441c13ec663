"""Every kind of wrong dataset: one finding, in words that name the file."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.data.check import KINDS, check
from medsegdiff.data.fingerprint import measure
from medsegdiff.data.layouts import LAYOUTS

SHAPE = (24, 30)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), np.uint8)).save(path)


def mask(path, values=None):
    if values is None:
        values = np.zeros(SHAPE, np.uint8)
        values[5:15, 4:20] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Six sound pictures with masks."""
    root = tmp_path / "data"
    for name in "abcdef":
        picture(root / "images" / f"{name}.png", ord(name))
        mask(root / "masks" / f"{name}.png")
    return root


def volume(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1.0]) if affine is None else affine), path)


@pytest.fixture
def volumes(tmp_path):
    """Four sound volumes with labels 1 and 2."""
    root = tmp_path / "data"
    for number in range(4):
        labels = np.zeros((9, 8, 7), np.uint8)
        labels[2:6, 2:5, 1:5], labels[3, 3, 3] = 1, 2
        values = np.random.default_rng(number).normal(100, 20, labels.shape).astype(np.float32)
        volume(root / "images" / f"v{number}.nii.gz", values)
        volume(root / "labels" / f"v{number}.nii.gz", labels)
    return root


def found(root, **options):
    return [
        (kind, str(path.relative_to(root)), what)
        for kind, path, what in check(root, progress=False, **options).findings
    ]


def only(root, **options):
    """The one finding."""
    findings = found(root, **options)
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_dataset_has_no_findings(folder):
    checked = check(folder, progress=False)
    assert checked.findings == []
    assert [len(cases) for cases in checked.cases.values()] == [6, 0, 0]


def test_sound_volumes_have_no_findings(volumes):
    checked = check(volumes, progress=False)
    assert checked.findings == []
    assert checked.spec.labels == {1: 1, 2: 2}
    assert checked.fingerprint.cases == 4


@pytest.mark.parametrize("name", ["images/c.png", "masks/c.png"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "damaged or cut off|not an image"),
        (lambda path: path.write_text("text"), "not an image of a known format"),
    ],
)
def test_a_file_that_cannot_be_read(spoil, said, name, folder):
    spoil(folder / name)
    kind, path, what = only(folder)
    assert (kind, path) == ("unreadable", name)
    assert any(part in what for part in said.split("|"))


def test_an_image_without_a_mask_and_a_mask_without_an_image(folder):
    (folder / "masks/c.png").rename(folder / "masks/see.png")
    assert found(folder) == [
        ("unmatched", "images/c.png", "has no mask"),
        ("unmatched", "masks/see.png", "belongs to no image"),
    ]


def test_an_image_that_cannot_be_read_is_one_finding(volumes):
    (volumes / "images/v1.nii.gz").write_bytes(b"no volume")
    assert only(volumes)[:2] == ("unreadable", "images/v1.nii.gz")


def test_a_mask_with_channels(volumes):
    path = next((volumes / "labels").iterdir())
    image = nibabel.load(path)
    volume(path, np.stack([np.asanyarray(image.dataobj)] * 2, axis=-1), image.affine)
    kind, file, what = only(volumes)
    assert (kind, file) == ("unreadable", f"labels/{path.name}")
    assert what == "has channels, where a mask holds labels; export it again"


def test_a_mask_of_another_size(folder):
    mask(folder / "masks/c.png", np.pad(np.full((20, 20), 255), ((0, 3), (3, 3))))
    assert only(folder) == ("size", "masks/c.png", "is 26 x 23 pixels, its image 30 x 24")


def test_a_mask_without_foreground(folder):
    mask(folder / "masks/c.png", np.zeros(SHAPE))
    assert only(folder) == ("empty", "masks/c.png", "has no foreground")


def test_a_mask_without_background(folder):
    mask(folder / "masks/c.png", np.full(SHAPE, 255))
    assert only(folder) == ("full", "masks/c.png", "has no background")


def test_an_inverted_mask(folder):
    inverted = np.full(SHAPE, 255)
    inverted[5:15, 4:20] = 0
    mask(folder / "masks/c.png", inverted)
    kind, path, what = only(folder)
    assert (kind, path) == ("inverted", "masks/c.png")
    assert "77.8% of it, and all its corners, are foreground" in what


def test_an_antialiased_mask(folder):
    small = Image.open(folder / "masks/c.png").resize((15, 12), Image.Resampling.NEAREST)
    small.resize(SHAPE[::-1], Image.Resampling.BICUBIC).save(folder / "masks/c.png")
    kind, path, what = only(folder)
    assert (kind, path) == ("soft", "masks/c.png")
    assert what.endswith("of its pixels are grey")


def test_a_mask_that_is_a_jpeg(folder):
    Image.open(folder / "masks/c.png").save(folder / "masks/c.jpg", quality=95)
    (folder / "masks/c.png").unlink()
    assert only(folder) == ("soft", "masks/c.jpg", "a JPEG, which blurs edges")


def test_labels_that_are_none(folder):
    labels = np.zeros(SHAPE)
    labels[3:9, 3:9], labels[4:6, 4:6] = 1, 2
    for name in "abcdef":
        mask(folder / "masks" / f"{name}.png", labels)
    assert found(folder, num_classes=3) == []
    labels[5, 5] = 7
    mask(folder / "masks/c.png", labels)
    assert only(folder, num_classes=3) == ("labels", "masks/c.png", "holds the values 7; known are 1 to 2")
    assert only(folder, labels={1: 1, 2: 1}) == ("labels", "masks/c.png", "holds the values 7; known are 1, 2")


def test_labels_whose_background_is_255(folder):
    labels = np.full(SHAPE, 255)
    labels[3:15, 3:15], labels[6:9, 6:9] = 128, 0
    for name in "abcdef":
        mask(folder / "masks" / f"{name}.png", labels)
    assert found(folder, labels={128: 1, 0: 2}) == []
    mask(folder / "masks/c.png", np.full(SHAPE, 255))
    assert only(folder, labels={128: 1, 0: 2}) == ("empty", "masks/c.png", "has no foreground")


def test_the_same_image_twice_in_another_format(folder):
    Image.open(folder / "images/a.png").save(folder / "images/e.png")
    (folder / "images/e.png").rename(folder / "images/e.tif")
    Image.open(folder / "images/a.png").save(folder / "images/e.tif")
    assert only(folder) == ("duplicate", "images/e.tif", f"the same image as {folder / 'images/a.png'}")


def test_an_image_for_training_and_for_testing(folder):
    (folder / "train").mkdir()
    for name in ("images", "masks"):
        (folder / name).rename(folder / "train" / name)
    picture(folder / "test/images/a.png", 999)
    mask(folder / "test/masks/a.png")
    assert found(folder) == []
    picture(folder / "test/images/z.png", ord("d"))
    mask(folder / "test/masks/z.png")
    other = folder / "train/images/d.png"
    assert only(folder) == ("leakage", "test/images/z.png", f"the same image as {other}, which is for training")


def test_a_validation_split_is_checked_too(folder, capsys):
    for split in ("train", "val", "test"):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
    for path in [*folder.glob("images/*.png"), *folder.glob("masks/*.png")]:
        path.rename(folder / {"a": "val", "b": "test"}.get(path.stem, "train") / path.parent.name / path.name)
    for name in ("images", "masks"):
        (folder / name).rmdir()
    assert found(folder) == []
    (folder / "val/masks/a.png").write_bytes(b"")
    (folder / "test/images/b.png").write_bytes((folder / "val/images/a.png").read_bytes())
    assert [(kind, path) for kind, path, _ in found(folder)] == [
        ("unreadable", "val/masks/a.png"),
        ("leakage", "test/images/b.png"),
    ]
    assert main(["data", "check", "--data-dir", str(folder)]) == 1
    assert "4 cases for training, 1 case for validation, 1 case for testing" in capsys.readouterr().out


def test_names_for_training_and_for_validation(folder, capsys):
    for split in ("train", "val", "test"):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
    for path in [*folder.glob("images/*.png"), *folder.glob("masks/*.png")]:
        home = {"a": "val", "b": "test"}.get(path.stem, "train")
        path.rename(folder / home / path.parent.name / {"a": "c.png"}.get(path.stem, path.name))
    ((kind, _, what),) = found(folder)
    assert kind == "unmatched"
    assert "val/images/c.png: of the same name as " in what
    assert main(["data", "prepare", "--data-dir", str(folder)]) == 2
    assert "which is in the training set; rename one" in capsys.readouterr().err


def test_a_patient_for_training_and_for_testing(tmp_path):
    for split, patients in (("train", "pq"), ("test", "qr")):
        for patient in patients:
            picture(tmp_path / split / "images" / patient / f"{split}.png", len(split) * ord(patient))
            mask(tmp_path / split / "masks" / patient / f"{split}.png")
    assert only(tmp_path) == ("leakage", "test/images/q/test.png", "patient q is in the training set, too")


def test_an_image_of_one_value(folder):
    Image.new("RGB", SHAPE[::-1], (7, 7, 7)).save(folder / "images/c.png")
    assert only(folder) == ("values", "images/c.png", "holds only the value 7")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value, volumes):
    values = np.random.default_rng(1).normal(size=(9, 8, 7)).astype(np.float32)
    values[3, 3, 3] = value
    volume(volumes / "images/v2.nii.gz", values)
    assert only(volumes) == ("values", "images/v2.nii.gz", "1 of its 504 values are not finite")


def test_a_mask_at_another_place(volumes):
    labels = np.asarray(nibabel.load(volumes / "labels/v2.nii.gz").dataobj)
    volume(volumes / "labels/v2.nii.gz", labels, np.diag([1, 1, 3, 1.0]))
    kind, path, what = only(volumes)
    assert (kind, path) == ("geometry", "labels/v2.nii.gz")
    assert "7 mm off" in what
    volume(volumes / "labels/v2.nii.gz", labels[:8])
    assert only(volumes)[:2] == ("size", "labels/v2.nii.gz")


def test_a_channel_at_another_place(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        for channel in range(2):
            affine = np.diag([1, 1, 2.0 + (number and channel), 1])
            volume(tmp_path / f"images/v{number}_000{channel}.nii", rng.normal(size=(5, 6, 7)), affine)
        labels = np.zeros((5, 6, 7), np.uint8)
        labels[2, 2, 2] = 1
        volume(tmp_path / f"labels/v{number}.nii", labels)
    kind, path, what = only(tmp_path)
    assert (kind, path) == ("geometry", "images/v1_0001.nii")
    assert what.startswith("has another grid than v1_0000.nii")


@pytest.mark.parametrize("name", ["v0", "v3"])
def test_an_image_of_more_channels(name, volumes):
    values = np.random.default_rng(2).normal(size=(9, 8, 7, 2))
    volume(volumes / f"images/{name}.nii.gz", values)
    assert only(volumes) == ("size", f"images/{name}.nii.gz", "has 2 channels, most have 1")
    with pytest.raises(InputError, match=r"v\d\.nii\.gz: has \d channels, .*v0\.nii\.gz \d; all images"):
        measure(LAYOUTS["volume"].find(volumes, "train"), progress=False)


def test_labels_of_volumes_that_the_description_lacks(volumes):
    (volumes / "images").rename(volumes / "imagesTr")
    (volumes / "labels").rename(volumes / "labelsTr")
    description = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "front"}}
    (volumes / "dataset.json").write_text(json.dumps(description))
    findings = found(volumes)
    assert [kind for kind, _, _ in findings] == ["labels"] * 4
    assert findings[0][2] == "holds the values 2; known are 1"
    (volumes / "dataset.json").write_text("{")
    assert only(volumes)[:2] == ("unreadable", ".")


def test_masks_of_volumes_that_are_no_labels(volumes):
    volume(volumes / "labels/v2.nii.gz", np.full((9, 8, 7), 0.4, np.float32))
    kind, path, what = only(volumes)
    assert (kind, path) == ("unreadable", "labels/v2.nii.gz")
    assert "not whole numbers" in what


def test_names_that_cannot_be_told_apart(folder):
    picture(folder / "images/c.bmp", 1)
    kind, path, what = only(folder)
    assert (kind, path) == ("unmatched", ".")
    assert "an image of the same name as c.bmp" in what or "an image of the same name as c.png" in what


def test_all_kinds_are_tested():
    source = Path(__file__).read_text()
    assert all(f'"{kind}"' in source for kind in KINDS)


# What the command prints and writes.


def spoilt(folder):
    mask(folder / "masks/c.png", np.zeros(SHAPE))
    (folder / "images/e.png").write_bytes(b"")


def test_the_command_prints_a_line_for_each_and_a_summary(folder, capsys):
    assert main(["data", "check", "--data-dir", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing found"
    spoilt(folder)
    before = sorted(folder.rglob("*"))
    assert main(["data", "check", "--data-dir", str(folder)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"unreadable: {folder / 'images/e.png'}: the file is empty")
    assert said[1] == f"empty: {folder / 'masks/c.png'}: has no foreground"
    assert said[2] == "layout folder: 6 cases for training"
    assert said[3] == "fingerprint: 5 pictures, 3 channels, median 24 x 30"
    assert said[-1] == "2 findings: 1 unreadable, 1 empty"
    assert sorted(folder.rglob("*")) == before


def test_the_command_prints_json(folder, capsys):
    spoilt(folder)
    assert main(["data", "check", "--data-dir", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"unreadable": 1, "empty": 1}
    assert found["cases"] == {"train": 6, "validation": 0, "test": 0}
    assert found["findings"][1] == {"kind": "empty", "file": str(folder / "masks/c.png"), "what": "has no foreground"}
    assert found["fingerprint"]["cases"] == 5


def test_the_command_draws_a_sheet(folder, tmp_path, capsys):
    spoilt(folder)
    words = ["data", "check", "--data-dir", str(folder), "--sheet", str(tmp_path / "sheet.png")]
    assert main(words) == 1
    assert main(words) == 1  # its own is replaced
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[2] == 3
    assert (sheet == (213, 94, 0)).all(axis=2).any()  # the frame around what was found
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"mine")
    assert main([*words[:-1], str(mine)]) == 2
    assert "mine.png: not written by data check" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"


def test_the_command_draws_volumes(volumes, tmp_path):
    assert main(["data", "check", "--data-dir", str(volumes), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--data-dir: missing"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--data-dir", "."], "the folder is empty"),
        (["--data-dir", "x", "--sheet", "x.jpg"], "--sheet x.jpg: must end in .png"),
        (["--data-dir", "x", "--labels", "1,a"], 'labels "1,a"'),
        (["--data-dir", "x", "--num-classes", "1"], "--num-classes 1"),
        (["--data-dir", "x", "--labels", "1,2", "--num-classes", "4"], "--num-classes 4: the labels name 3"),
        (["--data-dir", "x", "--data-name", "y"], "--data-name y"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_hostile_folders_end_in_one_line(tmp_path, capsys):
    """A pipe, a folder named as a picture, a link that leads nowhere, a name that is not UTF-8."""
    images = tmp_path / "images"
    picture(images / "a.png", 1)
    mask(tmp_path / "masks/a.png")
    os.mkfifo(images / "b.png")
    (images / "c.png").mkdir()
    (images / "d.png").symlink_to("nowhere")
    assert main(["data", "check", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "b.png: a pipe, where a file was expected" in said
    assert "d.png: no such file" in said
    (images / "a.png").rename(os.fsdecode(os.fsencode(images) + b"/\xb2\xa1.png"))
    assert main(["data", "check", "--data-dir", str(tmp_path)]) == 1
    assert "its name is not UTF-8" in capsys.readouterr().out
