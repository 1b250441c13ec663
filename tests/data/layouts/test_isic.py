from __future__ import annotations

import shutil

import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import Case
from medsegdiff.data.layouts import isic

IDS = ["ISIC_0000000", "ISIC_0000001"]
NAMES_2016 = ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth")


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        isic.find(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("parent", [".", "ISIC", "data/ISIC"])
def test_csv_below_a_parent(tmp_path, make_csv, parent):
    make_csv(tmp_path / parent / "Train", "Training", 2)
    make_csv(tmp_path / parent / "Test", "Test", 1)
    train = isic.find(tmp_path, "train")
    assert [case.id for case in train] == IDS
    assert train[1] == Case(
        IDS[1],
        (tmp_path / parent / "Train" / NAMES_2016[0] / f"{IDS[1]}.jpg",),
        tmp_path / parent / "Train" / NAMES_2016[1] / f"{IDS[1]}_Segmentation.png",
    )
    assert [case.id for case in isic.find(tmp_path, "test")] == IDS[:1]


def test_csv_in_the_folder_itself(tmp_path, make_csv):
    make_csv(tmp_path, "Training", 2)
    assert len(isic.find(tmp_path, "test")) == 2  # only the other split: taken at the user's word
    make_csv(tmp_path, "Test", 1)
    assert len(isic.find(tmp_path, "test")) == 1
    assert len(isic.find(tmp_path, "train")) == 2


def test_csv_order_and_choice_are_kept(tmp_path, make_csv):
    table = make_csv(tmp_path, "Training", 3)
    header, first, _, last = table.read_text().splitlines()
    table.write_text("\ufeff" + "\r\n".join([header, last, first]))
    assert [case.id for case in isic.find(tmp_path, "train")] == ["ISIC_0000002", "ISIC_0000000"]


def test_a_parent_does_not_lend_its_other_split(tmp_path, make_csv):
    make_csv(tmp_path / "Train", "Training")
    message = refusal(tmp_path, "test")
    assert str(tmp_path) in message
    assert "no ISIC test data" in message


@pytest.mark.parametrize(
    ("split", "images", "masks", "ending"),
    [
        ("train", *NAMES_2016, "_Segmentation"),
        ("test", "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "_Segmentation"),
        ("train", "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "_segmentation"),
        ("test", "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", "_segmentation"),
        ("test", "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "_segmentation"),
        ("train", "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "_segmentation"),
        ("test", "ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", "_segmentation"),
        ("test", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "_segmentation"),
    ],
)
def test_challenge_folders(tmp_path, make_challenge, split, images, masks, ending):
    make_challenge(tmp_path, images, masks, 2, ending)
    (tmp_path / images / "ATTRIBUTION.txt").write_text("CC0")
    (tmp_path / images / ".hidden.jpg").touch()
    (tmp_path / masks / "ATTRIBUTION.txt").write_text("CC0")
    Image.new("L", (4, 4)).save(tmp_path / images / f"{IDS[0]}_superpixels.png")
    for asked in (split, {"train": "test", "test": "train"}[split]):
        cases = isic.find(tmp_path, asked)
        assert [case.id for case in cases] == IDS
        assert cases[0].mask == tmp_path / masks / f"{IDS[0]}{ending}.png"


def test_test_set_goes_before_validation_set(tmp_path, make_challenge):
    make_challenge(tmp_path, "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", 1)
    make_challenge(tmp_path, "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", 2)
    assert len(isic.find(tmp_path, "test")) == 2


def test_two_years_in_one_folder(tmp_path, make_challenge):
    make_challenge(tmp_path, *NAMES_2016)
    make_challenge(tmp_path, "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")
    message = refusal(tmp_path, "train")
    assert "ISIC-2017_Training_Data" in message
    assert NAMES_2016[0] in message


def test_unusable_folders(tmp_path):
    assert f"{tmp_path / 'absent'}: no such folder" in refusal(tmp_path / "absent", "train")
    assert f"{tmp_path}: the folder is empty" in refusal(tmp_path, "train")
    (tmp_path / "notes.txt").write_text("nothing")
    assert f"{tmp_path}: no ISIC train data" in refusal(tmp_path, "train")
    assert f"{tmp_path / 'notes.txt'}: a file" in refusal(tmp_path / "notes.txt", "train")


def test_csv_names_a_missing_file(tmp_path, make_csv):
    table = make_csv(tmp_path, "Training")
    mask = tmp_path / NAMES_2016[1] / f"{IDS[1]}_Segmentation.png"
    mask.unlink()
    assert f"{table}: row 3: no file {mask}" in refusal(tmp_path, "train")
    assert [case.mask is None for case in isic.find(tmp_path, "train", need_masks=False)] == [False, True]
    image = tmp_path / NAMES_2016[0] / f"{IDS[0]}.jpg"
    image.unlink()
    assert f"{table}: row 2: no file {image}" in refusal(tmp_path, "train", need_masks=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b",img\n0,a.jpg\n", 'no column "seg"'),
        (b",img,seg\n", "no row"),
        (b',img,seg\n0,"a.jpg,b.png\n', "not a readable CSV"),
        (b"\xff\xfe\x00\x81", "not UTF-8"),
        (b",img,seg\n0,,b.png\n", 'row 2: column "img" is empty'),
        (b",img,seg\n0,a.jpg\n", 'row 2: column "seg" is empty'),
    ],
)
def test_malformed_csv(tmp_path, make_csv, content, words):
    table = make_csv(tmp_path, "Training")
    table.write_bytes(content)
    message = refusal(tmp_path, "train")
    assert str(table) in message
    assert words in message


def test_duplicate_id_in_csv(tmp_path, make_csv):
    table = make_csv(tmp_path, "Training")
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    assert f"{table}: row 4: id {IDS[0]} occurs twice" in refusal(tmp_path, "train")


def test_duplicate_id_in_folder(tmp_path, make_challenge):
    make_challenge(tmp_path, *NAMES_2016)
    Image.new("RGB", (4, 4)).save(tmp_path / NAMES_2016[0] / f"{IDS[0]}.png")
    assert f"{IDS[0]}.png: id {IDS[0]} occurs twice" in refusal(tmp_path, "train")
    (tmp_path / NAMES_2016[0] / f"{IDS[0]}.png").unlink()
    masks = tmp_path / NAMES_2016[1]
    shutil.copy(masks / f"{IDS[1]}_Segmentation.png", masks / f"{IDS[1]}_segmentation.png")
    assert f"a second mask for {IDS[1]}" in refusal(tmp_path, "train")


def test_image_without_mask(tmp_path, make_challenge):
    make_challenge(tmp_path, *NAMES_2016)
    (tmp_path / NAMES_2016[1] / f"{IDS[0]}_Segmentation.png").unlink()
    image = tmp_path / NAMES_2016[0] / f"{IDS[0]}.jpg"
    assert f"{image}: no mask" in refusal(tmp_path, "train")
    assert [case.mask is None for case in isic.find(tmp_path, "train", need_masks=False)] == [True, False]
    shutil.rmtree(tmp_path / NAMES_2016[1])
    assert f"{tmp_path / NAMES_2016[1]}: no such folder" in refusal(tmp_path, "train")
    assert [case.mask for case in isic.find(tmp_path, "train", need_masks=False)] == [None, None]


def test_mask_without_image(tmp_path, make_challenge):
    make_challenge(tmp_path, *NAMES_2016)
    (tmp_path / NAMES_2016[0] / f"{IDS[1]}.jpg").unlink()
    mask = tmp_path / NAMES_2016[1] / f"{IDS[1]}_Segmentation.png"
    assert f"{mask}: a mask without its image" in refusal(tmp_path, "train")
    assert len(isic.find(tmp_path, "train", need_masks=False)) == 1


def test_folder_without_images(tmp_path, make_challenge):
    make_challenge(tmp_path, *NAMES_2016, 1)
    (tmp_path / NAMES_2016[0] / f"{IDS[0]}.jpg").unlink()
    assert f"{tmp_path / NAMES_2016[0]}: no .jpg" in refusal(tmp_path, "train")


def test_a_table_from_windows(tmp_path, make_csv):
    table = make_csv(tmp_path, "Training")
    expected = isic.find(tmp_path, "train")
    text = table.read_text().replace("/", "\\").replace("\n", "\r\n")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert isic.find(tmp_path, "train") == expected


@pytest.mark.parametrize(("named", "kept"), [("u\u0308", "\u00fc"), ("\u00fc", "u\u0308")], ids=ascii)
def test_a_table_that_parts_letters_from_their_accents(tmp_path, make_csv, named, kept):
    table = make_csv(tmp_path, "Training", 1)
    image = isic.find(tmp_path, "train")[0].image
    image.rename(image.with_name(f"{kept}.jpg"))
    table.write_text(table.read_text().replace(image.name, f"{named}.jpg"), encoding="utf-8")
    assert [case.id for case in isic.find(tmp_path, "train")] == ["\u00fc"]


def test_the_same_name_in_two_folders_of_a_table_is_two_cases(tmp_path, make_csv):
    table = make_csv(tmp_path, "Training", 1)
    rows = []
    for patient in ("p1", "p2"):
        for kind in ("imgs", "masks"):
            (tmp_path / kind / patient).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / kind / patient / "001.png")
        rows.append(f"0,imgs/{patient}/001.png,masks/{patient}/001.png")
    table.write_text("\n".join([",img,seg", *rows]))
    cases = isic.find(tmp_path, "train")
    assert [case.id for case in cases] == ["p1_001", "p2_001"]
    assert cases[1].mask == tmp_path / "masks/p2/001.png"
