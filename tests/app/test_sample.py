import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app import published
from medsegdiff.app import sample as command
from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.phantom import write_isic
from medsegdiff.diffusion.process import DiffusionConfig

CONFIG = RunConfig(
    network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1),
    diffusion=DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A trained network in `run`, a dataset in `isic`, pictures in `mine`."""
    from medsegdiff.nn.versions import build_network
    from medsegdiff.nn.weights import state

    folder = tmp_path_factory.mktemp("sample")
    write_isic(folder / "isic", train=1, test=3, size=48)
    (folder / "mine").mkdir()
    for name, size in (("a", (40, 50)), ("b.1", (64, 33))):
        Image.new("RGB", size, (200, 150, 120)).save(folder / "mine" / f"{name}.png")
    arrays = {name: value.numpy() for name, value in state(build_network(CONFIG.network).initialise(1)).items()}
    groups = {"model": arrays, "ema-0.9999": arrays}
    (folder / "run").mkdir()
    checkpoints.save(folder / "run", checkpoints.Checkpoint(12, CONFIG, groups, training={}))
    return folder


@pytest.fixture
def sampled(monkeypatch):
    """What would be sampled."""
    seen = []
    monkeypatch.setattr(command, "sample", lambda *given: seen.append(given) or 0)
    return seen


def sample(home, out, *words):
    return main(["sample", "--model-path", str(home / "run"), "--out-dir", str(out), *map(str, words)])


def complaint(capsys):
    """The one line of standard error, progress aside."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_every_option_arrives(sampled, tmp_path):
    words = (
        "--model-path run --data-dir d --data-name folder --images a.png b --out-dir o --weights model --limit 3 "
        "--save-members --maps --cache-dir c --trace x y "
        "--sampler ddim --steps 7 --eta 0.5 --members 4..25 --until 0.1 --fusion staple "
        "--overlay false --overwrite --blend --tta --postprocess --batch-size 4 --seed 9 "
        "--backend onnx --trained-as isic-published"
    )
    assert main(["sample", *words.split()]) == 0
    (given,) = sampled
    assert given == (
        command.SampleOptions(
            model_path="run",
            data_dir="d",
            data_name="folder",
            images=["a.png", "b"],
            out_dir="o",
            weights="model",
            limit=3,
            save_members=True,
            overlay=False,
            maps=True,
            trace=["x", "y"],
            cache_dir="c",
            overwrite=True,
            backend="onnx",
            trained_as="isic-published",
        ),
        SamplingConfig(
            sampler="ddim",
            steps=7,
            eta=0.5,
            members="4..25",
            until=0.1,
            fusion="staple",
            blend=True,
            tta=True,
            postprocess=True,
            batch_size=4,
            seed=9,
        ),
    )


def test_without_options_the_defaults_are_the_dataclass_s(sampled):
    assert main(["sample"]) == 0
    assert sampled == [(command.SampleOptions(images=[], trace=[]), SamplingConfig())]


def test_options_come_from_a_file_too(sampled, tmp_path):
    (tmp_path / "o.yaml").write_text("members: 4..9\nsteps: 3\noverlay: false\n")
    assert main(["sample", "--config", str(tmp_path / "o.yaml"), "--steps", "2"]) == 0
    ((options, sampling),) = sampled
    assert sampling == SamplingConfig(members="4..9", steps=2)
    assert not options.overlay


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "best"], "--weights best: must be one of ema, model"),
        (["--limit", "-1"], "--limit -1: must not be negative"),
        ([], "--data-dir, --images: give one of them"),
        (["--data-dir", "{isic}", "--images", "{mine}"], "--data-dir, --images: give one of them"),
        (["--images", ""], '--images "": is empty'),
        (["--images", "{mine}", "--data-name", "folder"], "--data-name folder: has an effect with --data-dir only"),
        (["--images", "{mine}", "--out-dir", ""], '--out-dir "": is empty'),
        (["--images", "{isic}/none.png"], "none.png: no such file or folder"),
        (["--data-dir", "{mine}/none"], "none: no such"),
        (["--images", "{mine}", "--trace", "c"], "--trace c: no such image among those to segment; the first is a"),
        (["--images", "{mine}/a.png", "--control", "shuffle-noise"], "--control shuffle-noise: gives an image"),
        (["--images", "{mine}", "--steps", "9"], "--steps 9: the model was trained with 8 steps"),
        (["--images", "{mine}", "--timestep-respacing", "5,x"], '--timestep-respacing "5,x": must look like'),
        (["--images", "{mine}", "--members", "5..3"], "--members 5..3: must be"),
        (["--images", "{mine}", "--sampler", "ddpm", "--eta", "1"], "--eta 1.0: has an effect with --sampler ddim"),
        (["--images", "{mine}", "--model-path", "{mine}"], "mine: holds no checkpoint"),
        (["--images", "{mine}", "--model-path", "nowhere"], "nowhere: no such checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(home, tmp_path, capsys, words, said):
    words = [word.format(isic=home / "isic", mine=home / "mine") for word in words]
    assert sample(home, tmp_path / "out", *words) == 2
    assert said in complaint(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("images", "masks", "refused"),
    [
        ("images/a.png", "masks/a.png", True),
        ("a.png", "a_mask.png", True),
        ("imagesTr/a_0000.png", "labelsTr/a.png", True),
        ("a.png", "b_mask.png", True),
        ("a.png", "masks/a.png", False),  # of subfolders nothing is taken
        ("images/a.png", "images/b.png", False),
    ],
)
def test_masks_are_not_segmented_by_mistake(tmp_path, images, masks, refused):
    for name in (images, masks):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    if not refused:
        assert (tmp_path / images) in [case.image for case in command.find_inputs("", [str(tmp_path)])]
        return
    with pytest.raises(InputError, match=f"{masks}; give its images alone, or data_dir {tmp_path} for its test"):
        command.find_inputs("", [str(tmp_path)])
    assert command.find_inputs("", [str(tmp_path / images), str(tmp_path / masks)])  # one by one


@pytest.mark.parametrize(
    ("folder", "said"), [("Test", "holds masks, by their place or name"), ("", "or a dataset's as")]
)
def test_the_folder_of_an_isic_dataset_is_no_folder_of_images(tmp_path, folder, said):
    write_isic(tmp_path, train=1, test=1, size=32)
    with pytest.raises(InputError, match=said):
        command.find_inputs("", [str(tmp_path / folder)])


def test_the_network_must_be_the_one_that_is_expected(home, tmp_path, capsys):
    def run(**options):
        return command.sample(
            command.SampleOptions(str(home / "run"), images=[str(home / "mine")], out_dir=str(tmp_path / "out")),
            SamplingConfig(members=1, steps=2),
            expected={"image_size": 32, "diffusion_steps": 8, **options},
        )

    with pytest.raises(InputError, match=r"was trained with num_heads 1, not 2"):
        run(num_heads=2)
    assert run(num_heads=1) == 0


@pytest.mark.parametrize("steps", [50, 20])
def test_the_published_solver_s_steps_are_not_those_of_training(home, tmp_path, steps):
    """A line of the published README, for a model that was trained with 1000 steps."""
    diffusion = DiffusionConfig(diffusion_steps=1000)
    weights = load_weights(home / "run")
    config = dataclasses.replace(CONFIG, diffusion=diffusion)
    (tmp_path / "run").mkdir()
    groups = {"model": weights.arrays, "ema-0.9999": weights.arrays}
    checkpoints.save(tmp_path / "run", checkpoints.Checkpoint(12, config, groups, training={}))
    flags = f"--data_dir {home / 'isic'} --model_path {tmp_path / 'run'} --out_dir {tmp_path / 'out'} --limit 1 "
    flags += "--image_size 32 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1 --num_heads 1 --num_ensemble 2 "
    flags += "--attention_resolutions 16 --use_scale_shift_norm False --learn_sigma True "
    assert published.sample([*flags.split(), "--diffusion_steps", str(steps), "--dpm_solver", "True"]) == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["network_evaluations_per_mask"], run["sampling"]["sampler"]) == (steps, "dpm++")


def test_pictures_are_segmented_with_what_was_asked_for(home, tmp_path, capsys):
    out = tmp_path / "out"
    options = "--members 2 --steps 2 --maps --save-members --trace b.1".split()
    assert sample(home, out, "--images", home / "mine", *options) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"segmented 2 images; the masks lie in {out}"
    ends = ("", "_prob", "_std", "_entropy", "_cal", "_member0", "_member1", "_overlay")
    pictures = {f"{name}{end}.png" for name in ("a", "b.1") for end in ends}
    written = {path.name for path in out.iterdir() if path.name[0] != "."}
    assert written == pictures | {"b.1_trace.png", "b.1_trace.gif", "images.csv", "run.json"}
    assert np.asarray(Image.open(out / "b.1.png")).shape == (33, 64)
    assert json.loads((out / "run.json").read_text())["weights"].endswith("step-000012/ema-0.9999.safetensors")


def test_a_dataset_is_segmented_up_to_the_limit(home, tmp_path, capsys):
    out = tmp_path / "out"
    options = "--limit 2 --members 1 --sampler ddim --steps 1 --weights model".split()
    assert sample(home, out, "--data-dir", home / "isic", *options) == 0
    said = capsys.readouterr().out
    assert "note: ddim with one step evaluates the first timestep only; for one step take dpm++" in said
    run = json.loads((out / "run.json").read_text())
    assert run["images"] == ["ISIC_9500000", "ISIC_9500001"]
    assert run["weights"].endswith("model.safetensors")
    assert list(run["image_files"]) == run["images"]
    assert all(Path(path).is_file() and Path(path).is_absolute() for path in run["image_files"].values())
    assert not list(out.glob("*_member*"))


OPTIONS = ("--members", "2", "--steps", "2")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def photos(tmp_path):
    """A folder of the user's pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("x.png", "y.png"):
        Image.new("RGB", (40, 50), (200, 150, 120)).save(folder / name)
    return folder


def test_photos_are_never_written_over(home, photos, tmp_path, capsys):
    before = contents(photos)
    assert sample(home, photos, "--images", photos, *OPTIONS) == 2
    assert f"--out-dir {photos}: is a folder of images to segment" in complaint(capsys)
    (tmp_path / "link").symlink_to(photos)
    assert sample(home, tmp_path / "link", "--images", photos, *OPTIONS) == 2
    assert "link: is a folder of images to segment" in complaint(capsys)
    assert sample(home, photos, "--images", photos / "x.png", *OPTIONS) == 2
    assert f"x.png: would be written, and is the image {photos / 'x.png'}" in complaint(capsys)
    assert contents(photos) == before


@pytest.mark.parametrize("name", ["x.png", "x_prob.png", "x_member0.png", "run.json", "images.csv"])
@pytest.mark.parametrize("link", [False, True])
def test_what_sampling_did_not_write_stays(home, photos, tmp_path, capsys, name, link):
    """Such as ground truth in --out-dir, or the notes of another program."""
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    if link:
        mine.write_text("mine")
        (out / name).symlink_to(mine)
    else:
        (out / name).write_text("mine")
    assert sample(home, out, "--images", photos, *OPTIONS) == 2
    assert f"{out / name}: not written by sample" in complaint(capsys)
    assert {path.name for path in out.iterdir()} == {name}
    assert (out / name).read_text() == "mine"
    assert (out / name).is_symlink() == link


def test_an_earlier_mask_is_not_taken_for_the_image_and_written_over(home, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(home, out, "--images", photos, *OPTIONS) == 0
    before = contents(out)
    (tmp_path / "x.png").symlink_to(out / "x.png")
    assert sample(home, out, "--images", tmp_path / "x.png", *OPTIONS) == 2
    assert "would be written, and is the image" in complaint(capsys)
    assert contents(out) == before


def test_masks_of_different_settings_are_not_mixed(home, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(home, out, "--images", photos, *OPTIONS) == 0
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    assert sample(home, out, "--images", photos / "x.png", "--members", "2", "--steps", "3") == 2
    assert f"{out}: holds masks sampled with --steps 2, not 3; give another --out-dir" in complaint(capsys)
    assert contents(out) == before
    again = ("--members", "2", "--steps", "3", "--overwrite")
    assert sample(home, out, "--images", photos / "x.png", *again) == 0
    assert {path.name for path in out.glob("*.*") if path.name[0] != "."} == {
        *("x.png", "x_prob.png", "x_overlay.png"),
        *("images.csv", "run.json", "notes.txt"),
    }
    assert json.loads((out / "run.json").read_text())["sampling"]["steps"] == 3


def test_what_was_changed_since_is_not_overwritten(home, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(home, out, "--images", photos, *OPTIONS) == 0
    (out / "y.png").write_bytes(b"corrected by hand")
    before = contents(out)
    assert sample(home, out, "--images", photos, "--members", "2", "--steps", "3", "--overwrite") == 2
    assert f"{out / 'y.png'}: not written by sample, or changed since" in complaint(capsys)
    assert contents(out) == before
