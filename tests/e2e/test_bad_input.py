"""Each bad input ends in one line, exit code 2, and nothing left behind."""

import contextlib
import shutil
import subprocess

import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base import machine
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.data.phantom import write_isic
from medsegdiff.runtime.backend import jt
from medsegdiff.training import trainer

DATA = "ISBI2016_ISIC_Part1_Training_Data"
TRUTH = "ISBI2016_ISIC_Part1_Training_GroundTruth"
NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "isic"
    write_isic(folder, train=4, test=2, size=64)
    return folder


@pytest.fixture
def isic(phantoms, tmp_path):
    """A copy to spoil."""
    folder = tmp_path / "isic"
    shutil.copytree(phantoms, folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(folder))
    return folder


def first(isic, kind):
    return sorted((isic / "Train" / kind).iterdir())[0]


def train(isic, out, *options):
    return main(["train", "--data-dir", str(isic), "--out-dir", str(out), "--steps", "1", *NETWORK, *options])


def missing_folder(isic):
    shutil.rmtree(isic)
    return str(isic)


def empty_folder(isic):
    shutil.rmtree(isic)
    isic.mkdir()
    return str(isic)


def csv_names_a_missing_file(isic):
    image = first(isic, DATA)
    image.unlink()
    return image.name


def image_without_a_mask(isic):
    (csv,) = (isic / "Train").glob("*.csv")
    csv.unlink()
    mask = first(isic, TRUTH)
    mask.unlink()
    return first(isic, DATA).name


def mask_of_another_size(isic):
    mask = first(isic, TRUTH)
    Image.open(mask).resize((50, 40)).save(mask)
    return str(mask)


def truncated_jpeg(isic):
    image = first(isic, DATA)
    image.write_bytes(image.read_bytes()[:-200])
    return str(image)


def empty_png(isic):
    mask = first(isic, TRUTH)
    mask.write_bytes(b"")
    return str(mask)


def text_named_png(isic):
    mask = first(isic, TRUTH)
    mask.write_text("this is no picture\n")
    return str(mask)


@pytest.mark.parametrize(
    "spoil",
    [
        missing_folder,
        empty_folder,
        csv_names_a_missing_file,
        image_without_a_mask,
        mask_of_another_size,
        truncated_jpeg,
        empty_png,
        text_named_png,
    ],
)
def test_a_bad_dataset_is_named_and_nothing_is_left_behind(spoil, isic, tmp_path, cache, capsys):
    named = spoil(isic)
    capsys.readouterr()
    assert train(isic, tmp_path / "out") == 2
    complaint = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(complaint) == 1
    assert named in complaint[0]
    assert not (tmp_path / "out").exists()
    arrays = [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 10_000]
    assert arrays == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--image_size", "70"], "--image-size 70"),
        (["--diffusion_steps", "10"], "--diffusion-steps 10"),
        (["--num-channels", "48"], "--num-channels 48"),
        (["--steps", "many"], "steps"),
        (["--no-such-option", "1"], "--no-such-option"),
        (["--noise-schedule", "sigmoid"], "--noise-schedule sigmoid"),
        (["--class-cond", "True"], "--class-cond True"),
        (["--image-channels", "4"], "--image-channels 4"),
        (["--precision", "half"], "--precision half: must be one of fp32, bf16, fp16"),
        (["--batch-size", "1"], "--batch-size 1: batch norm cannot train on one image of 32 x 32 pixels"),
        (["--microbatch", "7"], "--batch-size 8, --microbatch 7: the last part is one image"),
        (["--microbatch", "1", "--dry-run"], "--microbatch 1: batch norm"),
        (["--lr", ".inf"], "--lr inf: must be finite"),
        (["--lr", "1e400"], "--lr inf: must be finite"),
        (["--lr", "0"], "--lr 0.0: must be at least 1e-12"),
        (["--microbatch", "0"], "--microbatch 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
    ],
)
def test_a_bad_option_is_named(options, word, phantoms, tmp_path, capsys):
    assert train(phantoms, tmp_path / "out", *options) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert word in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(jt.flags.use_cuda, reason="is about the CPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_the_machine_lacks_is_named(precision, phantoms, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("Old CPU", frozenset({"avx2"})))
    out, words = tmp_path / "out", ["--precision", precision]
    assert train(phantoms, out, *words) == 2
    assert train(phantoms, out, *words, "--dry-run") == 2
    given = ["--model-path", "run", "--data-dir", str(phantoms), "--out-dir", str(out)]
    assert main(["sample", *given, *words]) == 2
    assert main(["demo", "--out-dir", str(out), *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert all(line.startswith(f"error: --precision {precision}: ") and "use fp32" in line for line in said)
    assert not out.exists()


def test_odd_but_valid_pictures_are_read(isic, tmp_path):
    image, mask = first(isic, DATA), first(isic, TRUTH)
    Image.open(image).convert("CMYK").save(image)
    Image.open(mask).convert("P").save(mask)
    assert main(["data", "prepare", "--data-dir", str(isic), "--image-size", "32"]) == 0


@pytest.fixture(scope="session")
def trained(phantoms, tmp_path_factory):
    """A run of one step."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert train(phantoms, out, "--tensorboard", "False") == 0
    return out


@pytest.mark.e2e
def test_a_checkpoint_of_another_configuration_is_refused_and_named(trained, phantoms, tmp_path, capsys):
    from medsegdiff.app import published
    from medsegdiff.app.cli import report

    flags = f"--data_dir {phantoms} --out_dir {tmp_path / 'p'} --model_path {trained} --image_size 64".split()
    assert report(lambda: published.sample(flags)) == 2
    assert "--image-size 32, not 64" in capsys.readouterr().err
    assert train(phantoms, trained, "--num-res-blocks", "2", "--steps", "2") == 2
    assert "--num-res-blocks 1, not 2" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.e2e
def test_weights_that_break_are_an_error_in_training_and_in_sampling(trained, phantoms, tmp_path, capsys, monkeypatch):
    out, masks = tmp_path / "out", tmp_path / "masks"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", lambda *_: 1e38)
        assert train(phantoms, out) == 2
    (complaint,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert complaint.startswith("error: step 1: training has broken the weights: ")
    assert checkpoints.list_checkpoints(out) == []

    spoilt = checkpoints.load(trained / "step-000001")
    next(iter(spoilt.arrays["ema-0.9999"].values())).flat[0] = float("nan")
    monkeypatch.setattr(checkpoints, "broken", lambda arrays: "")
    checkpoints.save(out, spoilt)
    monkeypatch.undo()
    assert main(["sample", "--model-path", str(out), "--data-dir", str(phantoms), "--out-dir", str(masks)]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert complaint.startswith(f"error: {out / 'step-000001' / 'ema-0.9999.safetensors'}: cannot be used: ")
    assert not masks.exists()


@contextlib.contextmanager
def file_system(folder, options):
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.e2e
def test_a_full_disk_is_one_line_and_the_older_checkpoints_stay_whole(trained, phantoms, tmp_path, capfd):
    from medsegdiff.checkpoints import folder as checkpoints

    whole = sum(file.stat().st_size for file in (trained / "step-000001").iterdir())
    with file_system(tmp_path / "small", f"size={int(whole * 2.6)}") as disk:
        shutil.copytree(trained, disk / "run")
        capfd.readouterr()
        assert train(phantoms, disk / "run", "--steps", "3", "--save-interval", "1", "--keep", "0") == 2
        complaint = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
        assert len(complaint) == 1
        assert "no space left" in complaint[0]
        found, complaints = checkpoints.load_newest(disk / "run")
        assert found.step == 2
        assert complaints == []
        assert [p.name for p in (disk / "run").iterdir() if p.name.endswith(".tmp")] == []


@pytest.mark.e2e
def test_a_read_only_folder_is_one_line(trained, phantoms, tmp_path, capsys):
    with file_system(tmp_path / "frozen", "ro,size=1m") as folder:
        assert train(phantoms, folder / "run") == 2
        assert "read-only" in capsys.readouterr().err
        words = ["sample", "--model-path", str(trained), "--data-dir", str(phantoms), "--out-dir", str(folder / "p")]
        assert main(words) == 2
        assert "read-only" in capsys.readouterr().err
        assert list(folder.iterdir()) == []
