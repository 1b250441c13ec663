"""Layouts of one's own folders: pictures, volumes, nnU-Net, the Decathlon, BraTS."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.data.fingerprint import measure
from medsegdiff.data.layouts import LAYOUTS, choose, find_test, masks_of, parse_labels
from tests.data.volumes import ball, write

NAMES = ("001", "002")


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 9), level, np.uint8)).save(path)


def found(root, split="train", need_masks=True, name=None):
    """Of each case id, files and patient, relative to `root`."""
    cases = LAYOUTS[name or choose(root)].find(root, split, need_masks)
    return {case.id: ([str(path.relative_to(root)) for path in case.files], case.patient) for case in cases}


def spec_of(root):
    layout = LAYOUTS[choose(root)]
    return layout.spec(root, lambda: measure(layout.find(root, "train", False), progress=False))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("Images/{}.jpg", "Labels/{}_label.bmp"),
        ("imgs/{}.tif", "annotations/{}_segmentation.png"),
        ("img/{}.png", "ground truth/{}.png"),
        ("image/{}.png", "GT/{}-mask.gif"),
        ("{}.png", "{}_mask.png"),
    ],
)
def test_masks_are_matched_by_name(tmp_path, images, masks):
    for number, name in enumerate(("b", "a", "c.1")):
        picture(tmp_path / images.format(name), number)
        picture(tmp_path / masks.format(name), 255)
    if "ground truth" in masks:  # no usual name
        with pytest.raises(InputError, match="no mask"):
            found(tmp_path)
        return
    expected = {name: ([images.format(name), masks.format(name)], "") for name in ("a", "b", "c.1")}
    assert choose(tmp_path) == "folder"
    assert found(tmp_path) == expected
    assert found(tmp_path, "test") == {}


PARTED, WHOLE = "u\u0308", "\u00fc"  # of macOS, and of others


@pytest.mark.parametrize("image", [PARTED, WHOLE])
@pytest.mark.parametrize("below", ["", f"{PARTED}/", f"{WHOLE}/"])
def test_accents_are_the_same_however_a_system_writes_them(tmp_path, image, below):
    picture(tmp_path / f"images/{below}{image}_1.png")
    picture(tmp_path / f"masks/{below.replace(PARTED, WHOLE)}{PARTED}_1_mask.png", 255)
    picture(tmp_path / f"images/{below}b.png", 1)
    picture(tmp_path / f"masks/{below.replace(WHOLE, PARTED)}b.png", 255)
    cases = found(tmp_path)
    assert set(cases) == {f"{WHOLE}_1", "b"}
    assert all(len(files) == 2 and patient == (WHOLE if below else "") for files, patient in cases.values())


@pytest.mark.parametrize(
    "order",
    [
        "{split}/images/{name}.png {split}/masks/{name}.png",
        "images/{split}/{name}.png masks/{split}/{name}.png",
        "{split}/{name}.png {split}/{name}_mask.png",
    ],
)
def test_a_split_of_its_own(tmp_path, order):
    for split, name in (("Training", "a"), ("test", "b")):
        for path in order.format(split=split, name=name).split():
            picture(tmp_path / path)
    assert list(found(tmp_path)) == ["a"]
    assert list(found(tmp_path, "test")) == ["b"]
    assert [case.id for case in find_test(tmp_path)] == ["b"]


def test_a_validation_split_is_one_or_where_there_is_no_test_split_that(tmp_path):
    for split in ("train", "val", "test"):
        picture(tmp_path / f"images/{split}/{split}.png")
        picture(tmp_path / f"masks/{split}/{split}.png")
    assert [list(found(tmp_path, split)) for split in ("train", "validation", "test")] == [["train"], ["val"], ["test"]]
    for kind in ("images", "masks"):
        (tmp_path / kind / "test/test.png").unlink()
        (tmp_path / kind / "test").rmdir()
    assert [list(found(tmp_path, split)) for split in ("train", "validation", "test")] == [["train"], [], ["val"]]


def test_folders_below_are_patients(tmp_path):
    for patient in ("p1", "p2"):
        for name in ("001", "002"):
            picture(tmp_path / f"images/{patient}/{name}.png")
            picture(tmp_path / f"masks/{patient}/{name}.png")
    assert found(tmp_path)["p2_001"] == (["images/p2/001.png", "masks/p2/001.png"], "p2")
    assert len(found(tmp_path)) == 4
    for path in (tmp_path / "masks").rglob("*.png"):
        path.rename(tmp_path / "masks" / path.name)  # one takes the other's place
    with pytest.raises(InputError, match="no mask"):
        found(tmp_path)


@pytest.mark.parametrize("mask", ["labels/{}.png", "masks/{}_mask.png"])
def test_a_patients_folder_may_hold_both_folders(mask, tmp_path):
    for patient in ("p1", "p2"):
        for name in NAMES:
            picture(tmp_path / patient / f"images/{name}.png")
            picture(tmp_path / patient / mask.format(name))
    assert choose(tmp_path) == "folder"
    cases = {(*files, patient) for files, patient in found(tmp_path).values()}
    pairs = ((f"{one}/images/{name}.png", f"{one}/{mask.format(name)}", one) for one in ("p1", "p2") for name in NAMES)
    assert cases == set(pairs)


@pytest.mark.parametrize(
    ("image", "drawn", "other"),
    [
        ("{0}/images/0_{0}.tif", "{0}/1st_manual/0_manual1.gif", "{0}/mask/0_{0}_mask.gif"),  # DRIVE
        ("images/0_dr.jpg", "manual1/0_dr.tif", "mask/0_dr_mask.tif"),  # HRF
        ("images/0_a.jpg", "manual/0_a.tif", "mask/0_a.tif"),
    ],
)
def test_a_field_of_view_is_no_mask(image, drawn, other, tmp_path, capsys):
    for split in ("training", "test"):
        for name in (image, drawn, other):
            picture(tmp_path / name.format(split))
    ((files, _),) = found(tmp_path).values()
    assert files == [image.format("training"), drawn.format("training")]
    said = f"{other.format('training').split('/0_')[0]}: is not taken for the masks, which are those of "
    assert said in capsys.readouterr().err
    if "{" not in image:
        return
    (tmp_path / drawn.format("test")).unlink()  # as DRIVE's owners publish it
    (tmp_path / drawn.format("test")).parent.rmdir()
    (case,) = find_test(tmp_path)
    assert (case.id, case.mask) == ("0_test", None)


def test_of_several_folders_of_masks_the_others_are_told(tmp_path, capsys):
    for name in ("images/a.png", "masks/a.png", "labels/a.png"):
        picture(tmp_path / name)
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/a.txt").touch()
    assert found(tmp_path)["a"][0] == ["images/a.png", "masks/a.png"]
    said = capsys.readouterr().err
    assert "labels: is not taken for the masks, which are those of" in said
    assert "gt:" not in said


def test_a_folder_called_manual_does_not_take_the_place_of_masks(tmp_path):
    for name in ("images/a.png", "masks/a.png", "manual/a.png"):
        picture(tmp_path / "both" / name)
    assert found(tmp_path / "both")["a"][0] == ["images/a.png", "masks/a.png"]
    for name in ("images/a.png", "mask/a.png"):
        picture(tmp_path / "book" / name)
    (tmp_path / "book/manual").mkdir()
    (tmp_path / "book/manual/camera.pdf").touch()
    assert found(tmp_path / "book")["a"][0] == ["images/a.png", "mask/a.png"]
    for name in ("train/images/a.png", "train/masks/a.png", "test/images/b.png", "test/manual/b.png"):
        picture(tmp_path / "test" / name)
    assert found(tmp_path / "test")["a"][0] == ["train/images/a.png", "train/masks/a.png"]


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_images_of_two_kinds_are_told(images, labels, tmp_path, capsys):
    for name in (images, labels):
        volume(tmp_path / f"{name}/a.nii.gz", labels=name == labels)
        picture(tmp_path / f"{name}/a.png")
    assert found(tmp_path)["a"][0] == [f"{images}/a.nii.gz", f"{labels}/a.nii.gz"]
    said = f"{images}: a.png and its like are of another kind than the images that are read: left out"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("end", [".png", ".nii.gz"])
def test_a_channel_that_is_missing_is_named_of_pictures_too(tmp_path, end):
    make = picture if end == ".png" else volume
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "imagesTr/b_0000", "labelsTr/a", "labelsTr/b"):
        make(tmp_path / f"{name}{end}")
    with pytest.raises(InputError, match=f"b_0001{end}: no such channel beside b_0000{end}"):
        found(tmp_path)


@pytest.mark.parametrize("mask", ["{}", "{}_seg"])
def test_an_images_own_name_may_end_as_a_masks(mask, tmp_path):
    for name in ("a_seg", "b-label"):
        picture(tmp_path / f"images/{name}.png")
        picture(tmp_path / f"masks/{mask.format(name)}.png")
        volume(tmp_path / f"volumes/imagesTr/{name}_0000.nii.gz")
        volume(tmp_path / f"volumes/labelsTr/{name}.nii.gz", labels=True)
    assert found(tmp_path, name="folder")["a_seg"][0] == ["images/a_seg.png", f"masks/{mask.format('a_seg')}.png"]
    assert found(tmp_path / "volumes")["b-label"][0] == ["imagesTr/b-label_0000.nii.gz", "labelsTr/b-label.nii.gz"]


def test_numbered_files_are_channels_where_the_masks_say_so(tmp_path):
    for name in ("a", "b"):
        for channel in range(3):
            picture(tmp_path / f"images/{name}_{channel:04d}.png")
        picture(tmp_path / f"masks/{name}.png")
    assert found(tmp_path)["a"][0] == [f"images/a_000{channel}.png" for channel in range(3)] + ["masks/a.png"]
    assert spec_of(tmp_path).channels == 3
    assert not spec_of(tmp_path).colour
    for path in list((tmp_path / "masks").iterdir()):
        path.unlink()
    for path in (tmp_path / "images").iterdir():  # a camera's numbers
        picture(tmp_path / "masks" / path.name)
    assert len(found(tmp_path)) == 6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "masks/a.png").unlink(), "images/a.png: no mask"),
        (lambda root: picture(root / "masks/z.png"), "masks/z.png: a mask without its image"),
        (lambda root: picture(root / "masks/a_mask.png"), "a second mask for a beside"),
        (lambda root: picture(root / "images/a.jpg"), "an image of the same name as"),
    ],
)
def test_what_does_not_match_is_named(tmp_path, spoil, said):
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
        picture(tmp_path / f"masks/{name}.png")
    spoil(tmp_path)
    with pytest.raises(InputError) as caught:
        found(tmp_path)
    assert said in str(caught.value)


def volume(path, seed=0, labels=False, channels=1):
    image, mask = ball(channels=channels, seed=seed)
    write(path, mask if labels else image)


def test_volumes_have_the_labels_of_their_masks(tmp_path, capsys):
    for number, name in enumerate(("a", "b")):
        volume(tmp_path / f"images/{name}.nii.gz", number)
        volume(tmp_path / f"labels/{name}.nii.gz", number, labels=True)
    assert choose(tmp_path) == "volume"
    assert found(tmp_path)["a"] == (["images/a.nii.gz", "labels/a.nii.gz"], "")
    assert (spec_of(tmp_path).labels, spec_of(tmp_path).scaling) == ({1: 1, 2: 2}, "z-score")
    assert len(find_test(tmp_path)) == 2
    assert [case.id for case in find_test(tmp_path, kept=["b"])] == ["b"]
    said = f"note: taken of {tmp_path}: 1 of 2 cases, kept for testing by training"
    assert capsys.readouterr().err.rstrip().endswith(said)
    find_test(tmp_path, kept=["b", "elsewhere"])
    assert capsys.readouterr().err.rstrip().endswith(f"{said}; 1 case not found")


def test_a_decathlon_task_has_the_labels_of_its_description(tmp_path):
    volume(tmp_path / "imagesTr/a.nii.gz", channels=2)
    volume(tmp_path / "labelsTr/a.nii.gz", labels=True)
    volume(tmp_path / "imagesTs/b.nii.gz")
    description = {"modality": {"0": "CT"}, "labels": {"0": "background", "2": "core", "1": "shell", "7": "none"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert choose(tmp_path) == "volume"
    assert list(found(tmp_path)) == ["a"]
    assert found(tmp_path, "test", False) == {}  # without masks there is nothing to score
    spec = spec_of(tmp_path)
    assert (spec.channels, dict(spec.labels)) == (2, {1: 1, 2: 2, 7: 3})
    assert ".." in spec.scaling


def test_nnunet_has_numbered_channels_and_regions(tmp_path, capsys):
    for part, name in (("Tr", "a"), ("Ts", "b")):
        for channel in range(2):
            volume(tmp_path / f"images{part}/{name}_000{channel}.nii.gz")
        volume(tmp_path / f"labels{part}/{name}.nii.gz", labels=True)
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}, "labels": labels}))
    assert choose(tmp_path) == "nnunet"
    assert found(tmp_path)["a"][0] == ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"]
    assert list(found(tmp_path, "test")) == ["b"]
    spec = spec_of(tmp_path)
    assert (spec.channels, dict(spec.labels), spec.scaling) == (2, {1: 1, 2: 2}, "z-score")
    assert "regions, which overlap (whole, core); each value is a class" in capsys.readouterr().err
    regions = {"whole": {1: 1, 2: 1}, "core": {1: 0, 2: 1}}
    assert {name: parse_labels(name, tmp_path) for name in regions} == regions
    assert parse_labels("1:1,2:1", tmp_path) == {1: 1, 2: 1}
    with pytest.raises(InputError, match=r'labels`? "rim": .* has the regions whole, core; give one, or values as'):
        parse_labels("rim", tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": [1]}')
    with pytest.raises(InputError, match=r"dataset\.json: not the description of a dataset"):
        spec_of(tmp_path)


def test_a_channel_that_is_missing_is_named(tmp_path):
    for name in ("a", "b"):
        for kind in ("imagesTr/{}_0000", "imagesTr/{}_0001", "labelsTr/{}"):
            volume(tmp_path / f"{kind.format(name)}.nii.gz")
    (tmp_path / "imagesTr/b_0000.nii.gz").rename(tmp_path / "kept.nii.gz")
    with pytest.raises(InputError, match=r"imagesTr.b_0000\.nii\.gz: no such channel beside b_0001\.nii\.gz"):
        found(tmp_path)
    (tmp_path / "kept.nii.gz").rename(tmp_path / "imagesTr/b_0000.nii.gz")
    volume(tmp_path / "imagesTr/b_0000.nii")
    with pytest.raises(InputError, match="an image of the same name"):
        found(tmp_path, name="nnunet")


def test_numbers_are_names_where_the_masks_have_them(tmp_path):
    for number in (1, 2, 5):
        volume(tmp_path / f"images/a_{number:04d}.nii.gz")
        volume(tmp_path / f"labels/a_{number:04d}.nii.gz")
    assert list(found(tmp_path)) == ["a_0001", "a_0002", "a_0005"]


@pytest.mark.parametrize(
    ("channels", "scaling", "said"),
    [
        ({"0": "CT", "1": "PET"}, "z-score", ""),
        ({"0": "CT", "1": "ct"}, r"-?\d+\.\.\d+", ""),
        ({"0": "CT"}, r"-?\d+\.\.\d+", "names 1 channels, and the images have 2, which are read"),
    ],
)
def test_channels_of_several_kinds_have_no_window_in_common(tmp_path, capsys, channels, scaling, said):
    for kind in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a"):
        volume(tmp_path / f"{kind}.nii.gz", labels="labels" in kind)
    labels = {"background": "0", "a": "1", "b": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": channels, "labels": labels}))
    spec = spec_of(tmp_path)
    assert re.fullmatch(scaling, spec.scaling)
    assert spec.labels == {1: 1, 2: 2}
    noted = capsys.readouterr().err.partition("dataset.json: ")[2].strip()
    assert noted == said


def test_masks_of_several_classes_are_scored_by_the_regions_that_they_make(tmp_path):
    """Dice of a region is that of the union of its classes, in prediction and ground truth."""
    image, truth = ball()
    predicted = np.where((truth == 1) & (np.indices(truth.shape)[0] % 3 == 0), 2, truth).astype(np.uint8)
    write(tmp_path / "data/imagesTr/a_0000.nii.gz", image)
    write(tmp_path / "data/labelsTr/a.nii.gz", truth)
    write(tmp_path / "out/a.nii.gz", predicted)
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    (tmp_path / "data/dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": labels}))
    found = {}
    for name in ("whole", "core", ""):
        words = ["--pred-path", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
        assert main(["evaluate", *words, *(["--labels", name] if name else ["--num-classes", "3"])]) == 0
        found[name] = json.loads((tmp_path / "out/metrics.json").read_text())["metrics"]
    core = 2 * (truth == 2).sum() / ((truth == 2).sum() + (predicted == 2).sum())
    assert found["whole"]["dice"]["mean"] == 1
    assert found["core"]["dice"]["mean"] == pytest.approx(core)
    assert found[""]["dice_class2"]["mean"] == pytest.approx(core)
    assert found[""]["dice_class1"]["mean"] < 0.9


@pytest.mark.parametrize("names", ["{}_t1 {}_t1ce {}_t2 {}_flair {}_seg", "{}-t1n {}-t1c {}-t2w {}-t2f {}-seg"])
@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
def test_brats(tmp_path, names, end, monkeypatch):
    ids = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS2021_00002"]
    for id in ids:
        for number, name in enumerate(names.format(*[id] * 5).split()):
            image, labels = ball(seed=number)
            write(tmp_path / id / f"{name}{end}", np.uint8([0, 1, 4])[labels] if name.endswith("seg") else image)
    assert choose(tmp_path) == "brats"
    cases = found(tmp_path)
    assert list(cases) == ids
    assert [patient for _, patient in cases.values()] == ["BraTS-GLI-00001", "BraTS-GLI-00001", ""]
    assert cases[ids[2]][0] == [f"{ids[2]}/{name.format(ids[2])}{end}" for name in names.split()]
    assert dict(spec_of(tmp_path).labels) == {1: 1, 2: 2, 4: 3}
    odd = tmp_path / ids[2] / f"W39_1998.09.19_Segm{end}"
    (tmp_path / cases[ids[2]][0][-1]).rename(odd)
    assert found(tmp_path)[ids[2]][0][-1] == f"{ids[2]}/{odd.name}"
    second = write(tmp_path / ids[1] / f"again{names.split()[0][2:]}{end}", image)
    with pytest.raises(InputError, match=f"t1n?{end}: of the same sequence as .*; keep one"):
        found(tmp_path)
    second.unlink()
    one = tmp_path / ids[1]
    assert choose(one) == "brats"
    assert list(found(one)) == [ids[1]]
    monkeypatch.chdir(one)
    assert [case.id for case in LAYOUTS["brats"].find(Path(), "train")] == [ids[1]]
    (mask,) = masks_of(one)
    assert mask.name == f"{names.split()[4].format(ids[1])}{end}"
    (one / f"{names.split()[0].format(ids[1])}{end}").unlink()  # then by its name
    assert masks_of(one) == {mask}
    (tmp_path / ids[0] / f"{names.split()[2].format(ids[0])}{end}").unlink()
    with pytest.raises(InputError, match=f"{ids[0]}: no file {ids[0]}_t2.nii.gz"):
        found(tmp_path)


def test_an_unknown_folder_is_told_what_to_do(tmp_path):
    with pytest.raises(InputError, match="the folder is empty"):
        choose(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no dataset .* \(down to 5 levels, 10,000 entries\); put images"):
        choose(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        choose(tmp_path / "none")


def test_a_whole_disk_is_no_dataset_however_much_lies_deep_in_it(tmp_path):
    image, labels = ball()
    deep = tmp_path / "a/b/c/d/e/BraTS2021_00000"
    for end in ("t1", "t2", "seg"):
        write(deep / f"BraTS2021_00000_{end}.nii.gz", labels if end == "seg" else image)
    with pytest.raises(InputError, match="no dataset of a known layout"):
        choose(tmp_path)
    assert choose(tmp_path / "a") == "brats"


def test_links_that_lead_back_are_followed_once(tmp_path):
    for kind in ("images", "masks"):
        picture(tmp_path / kind / "p1/a.png")
        (tmp_path / kind / "p1/again").symlink_to("..")
    assert found(tmp_path) == {"a": (["images/p1/a.png", "masks/p1/a.png"], "p1")}
