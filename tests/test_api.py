"""The package from Python. All but the last tests do without Jittor."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medsegdiff
from medsegdiff.api import Segmenter
from medsegdiff.config.run import RunConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.evaluation.report import Report
from medsegdiff.io.predictions import read_probability
from tests.fake_denoiser import Bright

DOCS = Path(__file__).parents[1] / "docs" / "python.md"
CONFIG = RunConfig(diffusion=DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True))
SIZE = (40, 56)


def photo(seed=0, size=SIZE):
    """uint8 (H, W, 3): dark, with a bright rectangle."""
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 3), np.uint8)
    pixels[10:25, 12 + seed : 30 + seed] += 180
    return pixels


@pytest.fixture
def segmenter():
    return Segmenter(Bright(), CONFIG)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "photo.1.png"
    Image.fromarray(photo()).save(path)
    return path


def contents(folder):
    """The files for the user but `run.json`, which holds times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".csv")}


def same(a, b):
    np.testing.assert_array_equal(a.members, b.members)
    np.testing.assert_array_equal(a.probability, b.probability)


def test_importing_changes_nothing_and_starts_nothing():
    code = """
import os, signal, sys, warnings
def state():
    return dict(os.environ), list(warnings.filters), signal.getsignal(signal.SIGINT), os.getcwd()
before = state()
import medsegdiff
assert {name for name in sys.modules if name.startswith("medsegdiff")} == {"medsegdiff"}, sys.modules
assert not {"numpy", "jittor", "PIL"} & set(sys.modules)
assert {"load", "Segmenter", "Segmentation", "InputError", "train", "evaluate"} <= set(dir(medsegdiff))
assert state() == before
medsegdiff.load, medsegdiff.train, medsegdiff.evaluate, medsegdiff.Segmenter, medsegdiff.Segmentation
import numpy
filters = [each for each in warnings.filters if each in before[1]]
assert (state()[0], filters, *state()[2:]) == before
try:
    medsegdiff.load("nowhere")
except medsegdiff.InputError:
    pass
started = [name for name in sys.modules if name.startswith(("jittor", "torch")) or name == "medsegdiff.runtime.backend"]
assert not started, started
assert state()[0] == before[0]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = medsegdiff.segment


def test_the_types_are_announced():
    assert (Path(medsegdiff.__file__).parent / "py.typed").is_file()


def test_a_segmentation_has_the_image_s_own_size(segmenter):
    result = segmenter.segment(photo(), members=4, id="x")
    assert result.mask.shape == result.probability.shape == result.std.shape == SIZE
    assert (result.mask.dtype, result.probability.dtype, result.std.dtype) == (np.uint8, np.float32, np.float32)
    assert result.members.shape == (4, *SIZE)
    assert set(np.unique(result.mask)) == {0, 1}
    assert result.mask[17, 20] == 1
    assert result.mask[2, 2] == 0
    assert result.std.max() > 0.01
    assert 0.9 < result.agreement <= 1
    assert segmenter.segment(photo(), members=1).agreement is None
    assert result.id == "x"
    np.testing.assert_array_equal(result.image, photo())
    assert repr(result).startswith("Segmentation('x', 56 x 40 pixels, 4 members, agreement ")


def test_a_path_a_pillow_image_and_arrays_of_one_picture_have_one_mask(segmenter, file):
    expected = segmenter.segment(file)
    assert expected.id == "photo.1"
    for image in (str(file), photo(), Image.open(file), photo() / 255, (photo() / 255).astype(np.float32)):
        same(segmenter.segment(image, id="photo.1"), expected)


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1)])
def test_grey_is_three_equal_channels(segmenter, shape):
    grey = photo()[..., 0]
    expected = segmenter.segment(np.repeat(grey[..., None], 3, axis=2))
    same(segmenter.segment(grey.reshape(shape)), expected)
    same(segmenter.segment(Image.fromarray(grey)), expected)
    same(segmenter.segment(grey.reshape(shape) / 255), expected)


def test_a_pillow_image_is_turned_upright_as_its_file_is(segmenter, tmp_path):
    lying, exif = Image.fromarray(photo()), Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "x.png", exif=exif)
    from_file = segmenter.segment(tmp_path / "x.png")
    assert from_file.mask.shape == SIZE[::-1]
    same(segmenter.segment(Image.open(tmp_path / "x.png"), id="x"), from_file)


def test_a_list_is_segmented_in_common_batches_and_as_each_alone(file):
    images = [photo(1, (30, 64)), file, Image.fromarray(photo(2))]
    denoiser, rows = Bright(), []
    denoise = denoiser.denoise
    denoiser.denoise = lambda mask_t, t, condition: rows.append(len(mask_t)) or denoise(mask_t, t, condition)
    together = Segmenter(denoiser, CONFIG).segment(images, members=4, steps=2)
    assert rows == [12, 12]
    for image, result in zip(images, together):
        same(Segmenter(Bright(), CONFIG).segment(image, members=4, steps=2), result)
    named = Segmenter(denoiser, CONFIG).segment(tuple(images), id=["a", "b", "c"])
    assert [result.id for result in named] == ["a", "b", "c"]
    assert Segmenter(denoiser, CONFIG).segment([]) == []


def test_noise_is_drawn_from_seed_and_name(segmenter):
    usual = segmenter.segment(photo(), id="a", members=2)
    same(segmenter.segment(photo(), id="a", members=2, seed=0), usual)
    for options in ({"id": "b"}, {"id": "a", "seed": 1}):
        assert np.abs(segmenter.segment(photo(), members=2, **options).members - usual.members).max() > 1e-3


def test_options_arrive(segmenter):
    assert segmenter.segment(photo(), members="2..6").members.shape[0] >= 2
    few, many = (segmenter.segment(photo(), steps=steps).probability for steps in (1, 8))
    assert np.abs(few - many).max() > 1e-3


def test_several_classes_have_an_axis_of_their_own():
    result = Segmenter(Bright(classes=3), CONFIG).segment(photo(), members=2)
    assert result.probability.shape == result.std.shape == (3, *SIZE)
    assert result.members.shape == (2, 3, *SIZE)
    assert result.mask.shape == SIZE
    assert result.mask.max() >= 1
    assert result._repr_png_()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\); give \(H, W, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((2, 4, 5, 3), np.uint8), "shape"),
        (np.full((4, 5, 3), 200.0), "floats from 200 to 200; scale them"),
        (np.full((4, 5, 3), np.nan), "floats from nan"),
        (np.zeros((4, 5, 3), np.uint16), "an array of uint16; give uint8"),
        (np.zeros((4, 5, 3), bool), "an array of bool"),
        (np.ma.masked_greater(np.float32([[0.2, 0.4]]), 0.3), "a masked array; give what is masked a value"),
        (Image.new("I;16", (5, 4)), "mode I;16"),
        (Image.new("F", (5, 4)), "mode F"),
        (Image.new("L", (0, 4)), "0 x 4 pixels"),
        (np.nextafter(np.ones((4, 5), np.float32), 2), r"floats from 1\.00000012 to"),
        ("nowhere.png", "nowhere.png"),
        ("a\0.png", r"image 'a\\x00.png': can be no name; give a path"),
        (None, "a NoneType; give a path"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(segmenter, image, said):
    for given in (image, [photo(), image]):
        with pytest.raises(medsegdiff.InputError, match=said) as caught:
            segmenter.segment(given)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", [np.asmatrix, np.ma.masked_array])
def test_other_kinds_of_arrays_are_plain_ones(segmenter, kind):
    grey = photo()[..., 0]
    result = segmenter.segment(kind(grey))
    same(result, segmenter.segment(grey))
    assert type(result.image) is np.ndarray


def test_numbers_of_numpy_are_python_s(segmenter, tmp_path):
    ours = segmenter.segment(photo(), id="a", members=2, steps=3, seed=4)
    ours.save(tmp_path)
    for members in (np.int64(2), "2", "2..2"):
        other = segmenter.segment(photo(), id="a", members=members, steps=np.uint8(3), seed=np.int64(4))
        same(other, ours)
        other.save(tmp_path)
    with pytest.raises(medsegdiff.InputError, match="seed True: must be a whole number"):
        segmenter.segment(photo(), seed=np.bool_(True))


def test_a_name_that_is_not_utf8_is_refused(segmenter, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        Image.fromarray(photo()).save(path)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(medsegdiff.InputError, match="its name is not UTF-8"):
        segmenter.segment(path)
    assert segmenter.segment(path, id="cafe").id == "cafe"


def test_names_may_be_a_column(segmenter):
    found = segmenter.segment([photo(), photo()], id=np.array(["a", "b"]))
    assert [result.id for result in found] == ["a", "b"]


def test_names_must_be_as_many_as_images(segmenter):
    for id in (["a"], "a", ["a", "b", "c"], None, 5, {"a", "b"}):
        with pytest.raises(medsegdiff.InputError, match="id: give one name for each of the 2 images"):
            segmenter.segment([photo(), photo()], id=id)
    with pytest.raises(medsegdiff.InputError, match=r"id \['a'\]: must be a text"):
        segmenter.segment(photo(), id=["a"])


@pytest.mark.parametrize("path", [None, 5, b"a", ["a"], np.zeros(3), "", "a\0b", Path("a\0b"), "\ud800"])
def test_what_is_no_path_is_refused_by_the_argument_s_name(segmenter, tmp_path, path):
    (tmp_path / "true").mkdir()
    Image.fromarray(photo()[..., 0]).save(tmp_path / "true/a.png")
    result = segmenter.segment(photo(), id="a")
    result.save(tmp_path / "out")
    calls = {
        "path": lambda: medsegdiff.load(path),
        "config": lambda: medsegdiff.train(path),
        "folder": lambda: result.save(path),
        "predictions": lambda: medsegdiff.evaluate(path, tmp_path / "true"),
        "ground_truth": lambda: medsegdiff.evaluate(tmp_path / "out", {"a": path}),
        "data_dir": lambda: medsegdiff.evaluate(tmp_path / "out", data_dir=path),
        "files": lambda: segmenter.segment_volume([path]),
        "cache_dir": lambda: segmenter.segment_volume("v.nii.gz", cache_dir=path),
    }
    for argument, call in calls.items():
        said = ": (a \\w+|can be no name|is empty); give a path"
        if path is None and argument in ("data_dir", "cache_dir"):  # as by default
            said = "give one of them|v.nii.gz: "
        with pytest.raises(medsegdiff.InputError, match=said) as caught:
            call()
        assert path is None or str(caught.value).startswith(argument)


def test_arguments_of_wrong_kinds_are_refused(segmenter, tmp_path):
    for said, call in {
        "weights 5: must be one of ema, model": lambda: medsegdiff.load("isic", weights=5),
        r"backend \[0. 0.\]: must be one of auto": lambda: medsegdiff.load("isic", backend=np.zeros(2)),
        r"sampler \[0. 0.\]: must be one of ddpm": lambda: segmenter.segment(photo(), sampler=np.zeros(2)),
        "on_step: a str; give a function": lambda: segmenter.segment(photo(), on_step="a"),
        "id: give one name for each": lambda: segmenter.segment([photo(), photo()], id=np.array("a")),
        "ground_truth: an id is no text": lambda: medsegdiff.evaluate(tmp_path, {5: "a.png"}),
        r"steps: must be a whole number, not \[1, 2\]": lambda: medsegdiff.train(RunConfig(), steps=np.array([1, 2])),
        "steps: must be a whole number, not empty": lambda: medsegdiff.train(RunConfig(), steps=""),
    }.items():
        with pytest.raises(medsegdiff.InputError, match=said):
            call()


def test_images_of_one_name_have_the_same_noise(segmenter, tmp_path):
    for folder in ("p1", "p2"):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo()).save(tmp_path / folder / "001.png")
    first, second = segmenter.segment([tmp_path / "p1/001.png", tmp_path / "p2/001.png"])
    same(first, second)
    same(first, segmenter.segment(tmp_path / "p1/001.png"))


def test_what_is_saved_is_read_back_and_needs_a_name(segmenter, tmp_path):
    results = segmenter.segment([photo(), photo(1)], id=["a", "b.1"])
    for result in results:
        assert result.save(tmp_path / "out") == tmp_path / "out" / f"{result.id}.png"
        mask = np.asarray(Image.open(tmp_path / "out" / f"{result.id}.png"))
        np.testing.assert_array_equal(mask, 255 * result.mask)
        saved = read_probability(tmp_path / "out" / f"{result.id}_prob.png")
        np.testing.assert_allclose(saved, result.probability, atol=1e-5)
    assert [row.split(",")[0] for row in (tmp_path / "out" / "images.csv").read_text().split()] == ["id", "a", "b.1"]
    for id, said in (("", 'give one: segment\\(image, id="NAME"\\)'), ("a/b", "cannot name a prediction file")):
        with pytest.raises(medsegdiff.InputError, match=said):
            segmenter.segment(photo(), id=id).save(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["a.png", "a_prob.png", "images.csv"])
def test_what_saving_did_not_write_stays(segmenter, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(medsegdiff.InputError, match=f"{name}: not written by sample"):
        segmenter.segment(photo(), id="a").save(tmp_path)
    assert [path.name for path in tmp_path.glob("[!.]*")] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_neither_the_user_s_files_nor_another_seed_s_masks_are_mixed_with(segmenter, tmp_path):
    (tmp_path / "x.png").write_bytes(b"mine")
    with pytest.raises(medsegdiff.InputError, match=r"x\.png: not written by sample"):
        segmenter.segment(photo(), id="x").save(tmp_path)
    segmenter.segment(photo(), id="a").save(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(medsegdiff.InputError, match="holds masks sampled with seed 0, not 1"):
        segmenter.segment(photo(), id="b", seed=1).save(tmp_path)
    assert contents(tmp_path) == before
    segmenter.segment(photo(1), id="a").save(tmp_path)
    assert contents(tmp_path)["a.png"] != before["a.png"]


def test_jupyter_shows_image_outline_and_uncertainty_side_by_side(segmenter):
    result = segmenter.segment(photo().repeat(20, axis=0).repeat(20, axis=1))
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.height == 274
    pixels = np.asarray(shown.convert("RGB")).astype(int)
    image, outlined, heat = pixels[:, :384], pixels[:, 392:776], pixels[:, -384:]
    small = np.asarray(Image.fromarray(result.image).resize((384, 274), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image, small)
    assert 0 < (image != outlined).any(axis=2).mean() < 0.2
    assert heat.std() > 1


def test_the_weights_are_named_before_the_network_is_made(monkeypatch, tmp_path):
    """Which may take minutes; meanwhile a training removes old checkpoints."""
    weights = tmp_path / "isic.safetensors"
    weights.write_bytes((Path(medsegdiff.__file__).parent / "models" / "isic.safetensors").read_bytes())
    monkeypatch.setattr("medsegdiff.api.choose", lambda *_: "onnx")
    monkeypatch.setattr("medsegdiff.api.load_denoiser", lambda *_: weights.unlink() or Bright())
    result = medsegdiff.load(weights).segment(photo(), id="a")
    result.save(tmp_path / "out")
    monkeypatch.setattr("medsegdiff.api.load_denoiser", lambda *_: Bright())
    medsegdiff.load("isic").segment(photo(), id="b").save(tmp_path / "out")  # the same weights


def test_scores_are_the_evaluation_s(segmenter, tmp_path):
    images = {"a": photo(), "b": photo(1)}
    (tmp_path / "true").mkdir()
    for id, pixels in images.items():
        segmenter.segment(pixels, id=id, members=2).save(tmp_path / "out")
        mask = np.zeros(SIZE, np.uint8)
        mask[10:25, 12:30] = 255
        Image.fromarray(mask).save(tmp_path / "true" / f"{id}.png")
    report = medsegdiff.evaluate(tmp_path / "out", tmp_path / "true")
    assert isinstance(report, Report)
    assert 0.5 < report.summaries["dice"].mean < 1
    files = {id: tmp_path / "true" / f"{id}.png" for id in images}
    assert medsegdiff.evaluate(tmp_path / "out", files).summaries["dice"] == report.summaries["dice"]
    for given in ({}, {"ground_truth": files, "data_dir": tmp_path}):
        with pytest.raises(medsegdiff.InputError, match="ground_truth, data_dir: give one of them"):
            medsegdiff.evaluate(tmp_path / "out", **given)
    with pytest.raises(medsegdiff.InputError, match=r"labels \[1, 2\]: must be a text"):
        medsegdiff.evaluate(tmp_path / "out", files, labels=[1, 2])
    with pytest.raises(medsegdiff.InputError, match="there is no ground truth to compare with"):
        medsegdiff.evaluate(tmp_path / "out", {})


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ("isic-smal", {}, "did you mean isic-small"),
        ("isic-small", {"colour": 1}, "colour"),
        ("isic-small", {"image_size": "large"}, "image.size"),
        (RunConfig(), {"batch_siz": 1}, "batch_siz"),
        (RunConfig(), {"out_dir": ""}, 'out_dir "": is empty'),
        ("isic-small", {}, "data_dir"),
        (RunConfig(), {"data_dir": "nowhere"}, "nowhere"),
        (RunConfig(), {"dry_run": True}, "dry_run: is an option of the command `medsegdiff train` only"),
    ],
)
def test_training_refuses_what_the_command_refuses(config, options, said):
    with pytest.raises(medsegdiff.InputError, match=said):
        medsegdiff.train(config, **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset in `isic`, and what one training step from Python left in `run`."""
    from medsegdiff.data.phantom import write_isic

    folder = tmp_path_factory.mktemp("python")
    write_isic(folder / "isic", train=2, test=2, size=48)
    (folder / "small.yaml").write_text(
        "image_size: 32\nnum_channels: 32\nchannel_mult: 1,1\nnum_res_blocks: 1\nbatch_size: 2\npredict_xstart: true\n"
    )
    options = {"data_dir": str(folder / "isic"), "cache_dir": folder / "cache", "tensorboard": False, "lr": 1e-2}
    last = medsegdiff.train(folder / "small.yaml", **options, out_dir=folder / "run", steps=np.int64(2))
    assert last == folder / "run" / "step-000002"
    assert json.loads((last / "state.json").read_text())["config"]["lr"] == 1e-2
    return folder


def test_saved_are_the_bytes_that_the_command_writes(home, tmp_path, monkeypatch):
    from medsegdiff.app.cli import main

    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(home / "cache"))
    images = sorted((home / "isic" / "Test").rglob("*.jpg"))
    assert len(images) == 2
    words = ["--model-path", home / "run", "--out-dir", tmp_path / "command", "--images", *images]
    options = ["--members", 3, "--steps", 4, "--seed", 7, "--save-members", "--maps"]
    assert main(["sample", *map(str, words + options)]) == 0
    segmenter = medsegdiff.load(home / "run")
    pixels = np.asarray(Image.open(images[1]))
    results = segmenter.segment([images[0], pixels], members=3, steps=4, seed=7, id=["", images[1].stem])
    for result in results:
        assert result.std.max() > 0.001  # or all masks were alike
        result.save(tmp_path / "python", maps=True, members=True)
    expected = contents(tmp_path / "command")
    assert len(expected) == 2 * (5 + 1 + 3) + 1  # mask, prob, std, entropy, overlay; cal; members; and the table
    assert contents(tmp_path / "python") == expected
    # The command takes them for its own.
    words[3] = tmp_path / "python"
    assert main(["sample", *map(str, words + options)]) == 0
    assert contents(tmp_path / "python") == expected


def test_the_lines_in_the_documentation_run(home, tmp_path):
    first, second = (block.split("```")[0] for block in DOCS.read_text(encoding="utf-8").split("```python\n")[1:])
    assert len([line for line in first.splitlines() if line]) <= 10
    image, other = sorted((home / "isic" / "Test").rglob("*.jpg"))
    for name, source in (("photo.jpg", image), ("other.png", other)):
        Image.open(source).save(tmp_path / name)
    (tmp_path / "ground-truth").mkdir()
    mask = next((home / "isic" / "Test").rglob(f"{image.stem}_Segmentation.png"))
    Image.open(mask).save(tmp_path / "ground-truth" / "photo.png")
    lines = first.replace("results/isic-small", str(home / "run"))
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parents[1]), "MEDSEGDIFF_CACHE": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3
    assert (tmp_path / "predictions" / "photo.png").is_file()
    assert second.startswith('last = medsegdiff.train("isic-small", data_dir=')
