from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.data import cache, digests, source
from medsegdiff.data.cache import default_cache, prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.layouts import isic

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/isic2016"
CURVE = ROOT / "tests/parity/cases/curve-isic-64.npz"

# A builder of its own: argv is the cache folder, then image and mask paths; SLOW pauses at each image.
BUILDER = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from medsegdiff.data import cache, source
from medsegdiff.data.cases import Case

folder, *paths = map(Path, sys.argv[1:])
read = source.read_image

def slow(path):
    (folder.parent / "decoded").open("a").write("x")
    time.sleep(float(os.environ["SLOW"]))
    return read(path)

source.read_image = slow
cases = [Case(image.stem, (image,), mask) for image, mask in zip(paths[::2], paths[1::2])]
prepared = cache.prepare(cases, 16, folder, progress=False)
print(sum(round(255 * prepared.image(index).sum(dtype=float)) for index in range(len(prepared))))
"""


def start(folder, cases, slow):
    paths = [path for case in cases for path in (case.image, case.mask)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, folder, *paths],
        env={**os.environ, "SLOW": str(slow), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def entries(folder):
    """The entries of the cache, and what may be left of one."""
    return sorted(path for path in (folder / "cases").glob("*/*") if path.name != "digests.json")


def pixels(prepared):
    """All images, uint8 (N, S, S, C)."""
    return (
        np.rint(255 * np.stack([prepared.image(i) for i in range(len(prepared))]))
        .astype(np.uint8)
        .transpose(0, 2, 3, 1)
    )


def labels_of(prepared):
    """All masks, uint8 (N, S, S) of class indices."""
    numbers = np.arange(1, prepared.num_classes, dtype=np.uint8)[:, None, None]
    return np.stack(
        [(prepared.mask(i).astype(np.uint8) * numbers).sum(axis=0, dtype=np.uint8) for i in range(len(prepared))]
    )


def quiet(cases, size, folder, **options):
    return prepare(cases, size, folder, progress=False, **options)


def test_published_preprocessing(make_cases, tmp_path):
    cases = make_cases(3)
    prepared = quiet(cases, 16, tmp_path / "cache")
    assert len(prepared) == 3
    assert prepared.ids == [case.id for case in cases]
    assert prepared.original_sizes == [(24, 32)] * 3
    for index, case in enumerate(cases):
        with Image.open(case.image) as image, Image.open(case.mask) as mask:
            resized = np.asarray(image.resize((16, 16), Image.BILINEAR))
            grey = np.asarray(mask.resize((16, 16), Image.BILINEAR))
        expected = resized.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(prepared.image(index), expected)
        np.testing.assert_array_equal(prepared.mask(index), (grey > 0)[None].astype(np.float32))
        assert prepared.image(index).dtype == prepared.mask(index).dtype == np.float32


def test_nearest_masks(make_cases, tmp_path):
    cases = make_cases(1)
    bilinear = quiet(cases, 16, tmp_path / "cache")
    nearest = quiet(cases, 16, tmp_path / "cache", mask_resize="nearest")
    assert nearest.fingerprint != bilinear.fingerprint
    with Image.open(cases[0].mask) as mask:
        expected = np.asarray(mask.resize((16, 16), Image.NEAREST)) > 0
    np.testing.assert_array_equal(labels_of(nearest)[0], expected)
    assert labels_of(nearest).sum() < labels_of(bilinear).sum()


def plain_cases(folder):
    """Cases in a format without compression, whose bytes no library's version changes."""
    y, x = np.mgrid[:24, :32]
    cases = []
    for index in range(2):
        case = Case(f"case-{index}", (folder / f"{index}.ppm",), folder / f"{index}.pgm")
        pixels = np.stack([5 * x + index, 7 * y, x * y % 256], 2).astype(np.uint8)
        disc = (x - 12) ** 2 + (y - 11) ** 2 < 60 + 30 * index
        case.image.write_bytes(b"P6 32 24 255\n" + pixels.tobytes())
        case.mask.write_bytes(b"P5 32 24 255\n" + (200 * disc).astype(np.uint8).tobytes())
        cases.append(case)
    return cases


@pytest.mark.parametrize(
    ("mode", "fingerprint", "masks"),
    [
        ("bilinear", "73f19f7ab73a106ef4dbaae4299b60f6b82d8d32", "2fa528d678d1d5aa"),
        ("nearest", "57cbe0216b6df19508f7d124a91f1918e51186bd", "7e65d9a11e3bd552"),
    ],
)
def test_binary_entries_are_those_of_version_1(tmp_path, mode, fingerprint, masks):
    """Caches and checkpoints of before there were several classes go on being used."""
    prepared = quiet(plain_cases(tmp_path), 16, tmp_path / "cache", mask_resize=mode)
    assert (prepared.fingerprint, prepared.num_classes) == (fingerprint, 2)
    digest = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in (pixels(prepared), labels_of(prepared))]
    assert digest == ["bdf5e2b09cc37f7f", masks]
    assert (prepared.ids, prepared.original_sizes) == (["case-0", "case-1"], [(24, 32)] * 2)


def test_binary_entries_without_masks_are_those_of_version_1(tmp_path):
    bare = [Case(case.id, case.channels) for case in plain_cases(tmp_path)]
    for count in (2, 5):  # nothing is made of masks that are not there
        prepared = quiet(bare, 16, tmp_path / "cache", num_classes=count)
        assert prepared.fingerprint == "ba26153eb1e7e699377815f3fb3e873ffe780abb"
        assert prepared.num_classes == count


def test_classes_become_channels(label_cases, tmp_path):
    prepared = quiet(label_cases, 16, tmp_path / "cache", num_classes=3)
    assert prepared.num_classes == 3
    for index, case in enumerate(label_cases):
        with Image.open(case.mask) as mask:
            labels = np.asarray(mask.resize((16, 16), Image.NEAREST))
        assert set(np.unique(labels)) == {0, 1, 2}
        np.testing.assert_array_equal(labels_of(prepared)[index], labels)
        mask = prepared.mask(index)
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, np.stack([labels == 1, labels == 2]))
    again = quiet(label_cases, 16, tmp_path / "cache", num_classes=3)
    assert (again.fingerprint, again.num_classes) == (prepared.fingerprint, 3)


def test_the_number_of_classes_is_part_of_the_key_and_the_resizing_of_labels_not(label_cases, tmp_path):
    two, three, nearest, four = (
        quiet(label_cases, 16, tmp_path / "cache", **options).fingerprint
        for options in (
            {},
            {"num_classes": 3},
            {"num_classes": 3, "mask_resize": "nearest"},
            {"num_classes": 4, "mask_resize": "nearest"},
        )
    )
    assert len({two, three, four}) == 3
    assert three == nearest


def test_a_class_too_many_is_named_and_leaves_nothing(label_cases, tmp_path):
    with Image.open(label_cases[1].mask) as mask:
        labels = np.array(mask)
    labels[3, 3] = 7
    Image.fromarray(labels).save(label_cases[1].mask)
    with pytest.raises(InputError) as caught:
        quiet(label_cases, 16, tmp_path / "cache", num_classes=3)
    message = str(caught.value)
    assert message.startswith(f"{label_cases[1].mask}: holds class 7")
    assert "num_classes 3" in message
    assert "give num_classes 8" in message
    assert quiet(label_cases, 16, tmp_path / "cache", num_classes=8).mask(1).shape == (7, 16, 16)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL}")
@pytest.mark.skipif(not CURVE.is_file(), reason=f"no parity case {CURVE}")
def test_checksums_of_the_published_project(tmp_path):
    prepared = quiet(isic.find(REAL, "train")[:64], 64, tmp_path)
    with np.load(CURVE) as case:
        images = [prepared.image(index).mean() for index in range(64)]
        np.testing.assert_allclose(images, case["image0_mean"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(labels_of(prepared).mean((1, 2)), case["mask0_mean"])


def test_cases_without_masks(make_cases, tmp_path):
    first, second = make_cases(2)
    for cases in ([Case(first.id, first.channels)], [Case(first.id, first.channels), second]):
        prepared = quiet(cases, 16, tmp_path / "cache")
        assert not prepared.has_masks
        with pytest.raises(ValueError, match="no masks"):
            prepared.mask(0)
        assert prepared.image(0).shape == (3, 16, 16)


def test_keyed_by_content(make_cases, tmp_path):
    cases = make_cases(2)
    first = quiet(cases, 16, tmp_path / "cache").fingerprint
    os.utime(cases[0].image, (1, 1))
    assert quiet(cases, 16, tmp_path / "cache").fingerprint == first
    assert quiet(cases, 8, tmp_path / "cache").fingerprint != first
    assert quiet(cases[::-1], 16, tmp_path / "cache").fingerprint != first
    renamed = [Case("other", cases[0].channels, cases[0].mask), cases[1]]
    assert quiet(renamed, 16, tmp_path / "cache").fingerprint != first
    seen = {first}
    for path in (cases[1].image, cases[1].mask):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[0, 0] ^= 255
        Image.fromarray(pixels).save(path)
        seen.add(quiet(cases, 16, tmp_path / "cache").fingerprint)
    assert len(seen) == 3


def test_second_start_reads_no_source(make_cases, tmp_path, monkeypatch):
    cases = make_cases(2)
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)  # the files are seconds old
    first = quiet(cases, 16, tmp_path / "cache")

    def forbidden(path):
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(digests, "file_digest", forbidden)
    monkeypatch.setattr(source, "read_image", forbidden)
    assert quiet(cases, 16, tmp_path / "cache").fingerprint == first.fingerprint


def test_fresh_files_are_not_remembered(make_cases, tmp_path):
    cases = make_cases(1)
    quiet(cases, 16, tmp_path / "cache")
    assert not (tmp_path / "cache/cases/digests.json").exists()


def test_damaged_index_costs_only_time(make_cases, tmp_path, monkeypatch):
    cases = make_cases(1)
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    first = quiet(cases, 16, tmp_path / "cache")
    (tmp_path / "cache/cases/digests.json").write_text("{half")
    assert quiet(cases, 16, tmp_path / "cache").fingerprint == first.fingerprint


def test_a_case_that_is_added_is_all_that_is_prepared(make_cases, tmp_path, monkeypatch):
    cases, read = make_cases(3), []
    original = source.read_image
    monkeypatch.setattr(source, "read_image", lambda path: read.append(path) or original(path))
    quiet(cases[:2], 16, tmp_path / "cache")
    quiet(cases, 16, tmp_path / "cache")
    quiet(cases[1:], 16, tmp_path / "cache")
    assert sorted(read) == [case.image for case in cases]


@pytest.mark.parametrize("kept", [0, 0.02, 0.5])
def test_a_damaged_entry_is_made_anew(make_cases, tmp_path, kept):
    cases = make_cases(2)
    expected = pixels(quiet(cases, 16, tmp_path / "cache"))
    path = entries(tmp_path / "cache")[1]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: int(len(content) * kept)])
    np.testing.assert_array_equal(pixels(quiet(cases, 16, tmp_path / "cache")), expected)
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", [0, 20, 250, 500, -9, -400])
def test_a_flipped_byte_is_found_before_use_and_the_entry_made_anew(make_cases, tmp_path, where):
    cases = make_cases(1)
    first = quiet(cases, 16, tmp_path / "cache")
    expected = pixels(first), labels_of(first)
    (path,) = entries(tmp_path / "cache")
    whole = path.read_bytes()
    for read in (labels_of, pixels):
        damaged = bytearray(whole)
        damaged[where] ^= 4
        path.write_bytes(damaged)
        again = quiet(cases, 16, tmp_path / "cache")
        assert again.original_sizes == [(24, 32)]
        np.testing.assert_array_equal(read(again), expected[read is labels_of])
        assert path.read_bytes() == whole


def test_an_entry_that_vanishes_is_made_anew_unless_its_files_changed(make_cases, tmp_path):
    cases = make_cases(1)
    prepared = quiet(cases, 16, tmp_path / "cache")
    expected = prepared.image(0)
    entries(tmp_path / "cache")[0].unlink()
    np.testing.assert_array_equal(prepared.image(0), expected)
    entries(tmp_path / "cache")[0].unlink()
    cases[0].image.write_bytes(cases[0].mask.read_bytes())
    with pytest.raises(InputError, match="was changed meanwhile"):
        prepared.image(0)


@pytest.mark.parametrize("which", ["image", "mask"])
def test_what_changes_while_it_is_prepared_leaves_no_entry(make_cases, tmp_path, monkeypatch, which):
    cases = make_cases(2)
    path = getattr(cases[1], which)
    before = path.read_bytes()

    def build(entry, case, form):
        if case == cases[1]:
            path.write_bytes(getattr(cases[0], which).read_bytes())
        entries_build(entry, case, form)

    entries_build = cache.build
    monkeypatch.setattr(cache, "build", build)
    with pytest.raises(InputError, match=f"{cases[1].image}: it, or its mask, was changed meanwhile; run the command"):
        quiet(cases, 16, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1
    monkeypatch.undo()
    path.write_bytes(before)
    again = quiet(cases, 16, tmp_path / "cache")
    np.testing.assert_array_equal(pixels(again), pixels(quiet(cases, 16, tmp_path / "other")))


@pytest.mark.parametrize("index", ['{"a": 5}', "[1]", '{"a": [[1], 2]}', "[" * 10**5])
def test_an_index_of_other_things_costs_only_time(make_cases, tmp_path, index):
    cases = make_cases(1)
    first = quiet(cases, 16, tmp_path / "cache")
    (tmp_path / "cache/cases/digests.json").write_text(index)
    assert quiet(cases, 16, tmp_path / "cache").fingerprint == first.fingerprint


def thin(folder, high, dtype=np.uint8):
    lines = np.zeros((565, 584), dtype)
    lines[:, 40::70] = high
    case = Case("a", (folder / f"{high}.png",), folder / f"{high}-{np.dtype(dtype)}-mask.png")
    folder.mkdir(exist_ok=True)
    Image.fromarray(lines).save(case.mask)
    Image.new("RGB", lines.shape[::-1]).save(case.image)
    return case


@pytest.mark.parametrize("mask_resize", ["bilinear", "nearest"])
def test_thin_lines_are_kept_whatever_the_mask_stores(tmp_path, mask_resize):
    expected = quiet([thin(tmp_path / "a", 255)], 64, tmp_path / "cache", mask_resize=mask_resize)
    expected = labels_of(expected)[0]
    assert mask_resize == "nearest" or expected.any(axis=0).sum() >= 8
    for high, dtype in ((1, np.uint8), (100, np.uint8), (1, np.uint16), (65535, np.uint16)):
        case = thin(tmp_path / "a", high, dtype)
        found = quiet([case], 64, tmp_path / "cache", mask_resize=mask_resize)
        np.testing.assert_array_equal(labels_of(found)[0], expected)


def test_unlikely_masks_are_said_where_they_are_prepared(make_cases, tmp_path, capsys):
    (case,) = make_cases(1)
    quiet([case], 16, tmp_path / "cache")
    assert capsys.readouterr().err == ""
    with Image.open(case.mask) as mask:
        inverted = 255 - np.asarray(mask)
    Image.fromarray(inverted).save(case.mask)
    quiet([case], 16, tmp_path / "cache")
    assert "are they inverted?" in capsys.readouterr().err


def test_two_builders_at_once(make_cases, tmp_path):
    cases = make_cases(4)
    folder = tmp_path / "cache"
    builders = [start(folder, cases, 0.2) for _ in range(2)]
    sums = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    prepared = quiet(cases, 16, folder)
    assert [int(text) for text in sums] == [pixels(prepared).sum(dtype=int)] * 2
    assert (tmp_path / "decoded").read_text() == "xxxx"  # one of them did all the work
    assert len(entries(folder)) == 4


def test_killed_builder(make_cases, tmp_path):
    cases = make_cases(4)
    folder = tmp_path / "cache"
    builder = start(folder, cases, 30)
    deadline = time.monotonic() + 30
    while not (tmp_path / "decoded").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    (folder / "cases/ab").mkdir(exist_ok=True)
    (folder / f"cases/ab/.x.safetensors.{'0' * 32}.tmp").touch()  # as if it had been writing
    prepared = quiet(cases, 16, folder)
    assert len(prepared) == 4
    assert pixels(prepared).any((1, 2, 3)).all()
    assert len(entries(folder)) == 4


def bad_image(case):
    case.image.write_bytes(case.image.read_bytes()[:400])
    return case.image


def bad_mask(case):
    case.mask.write_text("no picture")
    return case.mask


def other_size(case):
    Image.new("L", (5, 5)).save(case.mask)
    return case.mask


@pytest.mark.parametrize("spoil", [bad_image, bad_mask, other_size])
def test_bad_source_is_named_and_leaves_nothing(make_cases, tmp_path, spoil):
    cases = make_cases(5)
    path = spoil(cases[3])
    with pytest.raises(InputError) as caught:
        quiet(cases, 16, tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}: ")
    assert len(entries(tmp_path / "cache")) <= 4  # those of the others, which are whole


def test_missing_source(make_cases, tmp_path):
    cases = make_cases(2)
    cases[1].mask.unlink()
    with pytest.raises(InputError) as caught:
        quiet(cases, 16, tmp_path / "cache")
    assert str(cases[1].mask) in str(caught.value)


def test_an_interrupted_preparation_is_resumed(make_cases, tmp_path, monkeypatch):
    cases = make_cases(6)
    calls = itertools.count()
    read = source.read_image

    def interrupted(path):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(source, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quiet(cases, 16, tmp_path / "cache")
    done, before = len(entries(tmp_path / "cache")), next(calls)
    assert 0 < done < 6
    quiet(cases, 16, tmp_path / "cache")
    assert next(calls) == before + 1 + 6 - done  # each of the others was read once more


def test_data_folder_stays_as_it_is(make_cases, tmp_path):
    cases = make_cases(2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")}
    quiet(cases, 16, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")} == before


def test_senseless_arguments(make_cases, tmp_path):
    cases = make_cases(1)
    with pytest.raises(InputError, match="no images"):
        quiet([], 16, tmp_path / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        quiet(cases, 16, tmp_path / "file")


def test_a_full_disk_is_told_with_the_remedy(make_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 20))
    words = r"cases: 1 cases need 256 MiB there, and 3 MiB are free; give another cache_dir, or set MEDSEGDIFF_CACHE"
    with pytest.raises(InputError, match=words):
        quiet(make_cases(1), 16, tmp_path / "cache")


def test_progress_goes_to_standard_error(make_cases, tmp_path, capsys, monkeypatch):
    clock = itertools.count(step=10)  # a slow machine: what is soon over is not shown
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    cases = make_cases(2)
    prepare(cases, 16, tmp_path / "cache")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "preparing: 2 of 2 cases" in captured.err
    prepare(cases, 8, tmp_path / "cache", progress=False)
    assert capsys.readouterr().err == ""


def test_default_cache(monkeypatch, tmp_path):
    for name in ("MEDSEGDIFF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache/medsegdiff"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg/medsegdiff"
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
