from __future__ import annotations

import re
from pathlib import Path

import pytest

from medsegdiff.app.cli import main
from medsegdiff.data.layouts import isic


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "images"
    assert main(["data", "phantom", "--out_dir", str(out), "--train", "3", "--test", "2", "--size=48"]) == 0
    return out


def test_phantom_writes_both_splits(images):
    assert [len(isic.find(images, split)) for split in ("train", "test")] == [3, 2]


def test_phantom_depends_on_the_seed(images, tmp_path):
    words = ["--train", "1", "--test", "1", "--size", "48"]
    for name, seed in (("same", "0"), ("other", "1")):
        assert main(["data", "phantom", "--out-dir", str(tmp_path / name), *words, "--seed", seed]) == 0
    first, same, other = (isic.find(folder, "train")[0] for folder in (images, tmp_path / "same", tmp_path / "other"))
    assert first.image.read_bytes() == same.image.read_bytes() != other.image.read_bytes()


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("test", 2)])
def test_prepare_says_where_and_what(split, count, images, tmp_path, capsys):
    words = ["data", "prepare", "--data-dir", str(images), "--image-size", "32", "--part", split]
    words += ["--mask-resize", "nearest", "--cache-dir", str(tmp_path / "cache")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{count} images with masks, 32 x 32" in said
    assert re.search(
        r"foreground: \d+\.\d% of the pixels, \d+\.\d% to \d+\.\d% of a mask; 0 of \d masks have none", said
    )
    assert re.search(r"fingerprint ([0-9a-f]{40})", said)
    folder = Path(re.search(r"written to (.*)", said)[1])
    assert folder == tmp_path / "cache" / "cases"
    assert len(list(folder.glob("*/*.safetensors"))) == count
    assert main(words) == 0
    assert capsys.readouterr().out == said


def test_the_cache_is_listed_and_cleared(images, tmp_path, capsys):
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert main(["data", "prepare", "--data-dir", str(images), "--image-size", "32", *cache]) == 0
    capsys.readouterr()
    assert main(["data", "cache", "--list", *cache]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert "3 cases, 3 slices, 32 x 32" in first
    assert last.startswith("3 cases, ")
    assert main(["data", "cache", "--clear", *cache]) == 0
    assert "removed" in capsys.readouterr().out
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert main(["data", "cache", "--list", *cache]) == 0
    assert capsys.readouterr().out.startswith("0 cases, 0.0 MiB")


def test_prepare_takes_test_images_without_masks(images, tmp_path, capsys):
    words = ["data", "phantom", "--out-dir", str(tmp_path / "images"), "--train", "1", "--test", "1", "--size", "48"]
    assert main(words) == 0
    isic.find(tmp_path / "images", "test")[0].mask.unlink()
    words = ["data", "prepare", "--data-dir", str(tmp_path / "images"), "--image-size", "32"]
    assert main([*words, "--part", "test", "--cache-dir", str(tmp_path / "cache")]) == 0
    assert "1 images without masks" in capsys.readouterr().out


def test_three_classes_are_drawn_and_prepared(tmp_path, capsys):
    words = ["--out-dir", str(tmp_path / "images"), "--train", "2", "--test", "1", "--size", "48"]
    assert main(["data", "phantom", *words, "--num-classes", "3"]) == 0
    words = ["data", "prepare", "--data-dir", str(tmp_path / "images"), "--image-size", "32"]
    words += ["--cache-dir", str(tmp_path / "cache")]
    assert main([*words, "--num-classes", "3"]) == 0
    said = capsys.readouterr().out
    assert "2 images with masks of 3 classes, 32 x 32" in said
    assert re.search(r"class 2: .*; 0 of 2 masks have none", said)


def test_prepare_refuses_masks_of_more_classes_than_it_is_told(images, tmp_path, capsys):
    words = ["data", "prepare", "--data-dir", str(images), "--cache-dir", str(tmp_path / "cache")]
    assert main([*words, "--num-classes", "3"]) == 2  # white is 255
    said = capsys.readouterr().err.splitlines()[-1]
    assert "_Segmentation.png: holds class 255, but with --num-classes 3 they are 0 to 2" in said


@pytest.mark.parametrize(("size", "words"), [("0", "at least 32"), ("1000000000", "at most 2048")])
def test_prepare_refuses_a_size_that_makes_no_sense(images, capsys, size, words):
    assert main(["data", "prepare", "--data-dir", str(images), "--image-size", size]) == 2
    assert f"--image-size {size}: must be {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "phantom, download, check, prepare"),
        (["guess"], "phantom, download, check, prepare"),
        (["phantom"], "--out-dir"),
        (["phantom", "--train", "few", "--out-dir", "x"], "train"),
        (["phantom", "--train", "0", "--out-dir", "x"], "--train 0: must be at least 1"),
        (["phantom", "--size", "1000000000", "--out-dir", "x"], "--size 1000000000: must be at most 4096"),
        (["phantom", "--num-classes", "4", "--out-dir", "x"], "--num-classes 4"),
        (["phantom", "--seed", "-1", "--out-dir", "x"], "--seed -1: must not be negative"),
        (["prepare"], "--data-dir"),
        (["prepare", "--data-dir", "/no/such/folder"], "/no/such/folder"),
        (["prepare", "--data-dir", "x", "--part", "both"], "--part both"),
        (["prepare", "--data-dir", "x", "--mask-resize", "best"], "--mask-resize best"),
    ],
)
def test_bad_input_is_one_line(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert named in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("action", "option"), [("phantom", "--train"), ("prepare", "--image-size")])
def test_help_of_an_action(action, option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", action, "--help"])
    assert ended.value.code == 0
    assert option in capsys.readouterr().out
