"""Commands with odd words and files, and folders of others: right, or one line; nobody's files are lost.

MEDSEGDIFF_FUZZ and MEDSEGDIFF_FUZZ_FIRST as in `test_reading`.
"""

import json
import os
import random

import numpy as np

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import MANIFEST
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.weights import load_weights
from tests.fuzz import faults
from tests.fuzz.conftest import CONFIG
from tests.fuzz.test_reading import VALUES, damaged, seeds

SAMPLE = [
    "sample",
    "--model-path",
    "run",
    "--images",
    "photos",
    "--steps",
    "2",
    "--members",
    "2",
    "--overlay",
    "--maps",
]
EVALUATE = ["evaluate", "--pred-path", "predictions", "--gt-path", "truth"]
PHANTOM = ["data", "phantom", "--train", "2", "--test", "1", "--size", "32"]
COMMANDS = {
    "sample": (SAMPLE, ["a.png", "a_prob.png", "b_overlay.png", "b_std.png", "images.csv", "run.json"]),
    "evaluate": (EVALUATE, ["metrics.csv", "metrics.json", "retention.png"]),
    "data phantom": (PHANTOM, ["Train", "Test", "Train/ISBI2016_ISIC_Part1_Training_Data/a.jpg"]),
}


def files(folder):
    """What lies in a folder: links as where they lead, files as their bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = kind
    return found


def run(words, capfd):
    """The exit code of a command, which may complain in one line."""
    capfd.readouterr()
    try:
        code = main(list(map(str, words)))
    except SystemExit as ended:  # after help
        code = ended.code
    said = capfd.readouterr().err
    complaints = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said
    assert "unexpected" not in said, said
    assert not complaints or said.splitlines()[-1:] == complaints, said
    assert (code, len(complaints)) in ((0, 0), (1, 0), (2, 1)), (words, code, said)
    return code


def dice(folder):
    return [json.loads((folder / "metrics.json").read_text())["metrics"]["dice"]["mean"]]


@seeds(40)
def test_damaged_checkpoints_are_never_used(home, capsys, seed):
    rng = random.Random(seed)
    path = home / "run/step-000002" / rng.choice(("model.safetensors", "ema-0.9999.safetensors", "state.json"))
    content = path.read_bytes()
    path.write_bytes(damaged(content, rng))
    for which in ("ema", "model"):
        (value,) = np.unique(load_weights(home / "run", which).arrays["weight"])
        untouched = path.read_bytes() == content or path.stem not in (which, f"{which}-0.9999", "state")
        assert value == (2 if untouched else 1)
    newest, complaints = checkpoints.load_newest(home / "run")
    assert newest.step == (2 if path.read_bytes() == content else 1)
    assert all("\n" not in line for line in complaints)


@seeds(25)
def test_a_damaged_prediction_or_ground_truth_never_scores(home, capfd, seed):
    rng = random.Random(seed)
    names = ["truth/b.png", "predictions/b.png", "predictions/b_prob.png"]
    for name in rng.sample(names, rng.choice((1, 1, 2))):
        (home / name).write_bytes(damaged((home / name).read_bytes(), rng))
    if rng.random() < 0.3:
        (home / "predictions/images.csv").write_bytes(damaged(b"id,members,empty,agreement\na,5,0,0.5\n", rng))
    if run([*EVALUATE, "--out-dir", "scores"], capfd) == 0:
        assert dice(home / "scores") == [1]
    else:
        assert not (home / "scores").exists() or list((home / "scores").iterdir()) == []


WORDS = (
    *map(str, VALUES[:-2]),
    *(
        "",
        ".",
        "..",
        "/",
        "photos",
        "photos/a.png",
        "truth",
        "run",
        "predictions",
        "isic",
        "none",
        "~",
        "a\nb",
        "\udcff",
    ),
    *("pipe", "loop", "/dev/zero", "/dev/full/x", "x" * 300, "photos/" * 900, "link", "-1", "1e400", "9" * 400, "--"),
)
OPTIONS = {
    "sample": "model-path images data-dir out-dir weights limit members steps sampler seed trace cache-dir config",
    "evaluate": "pred-path gt-path data-dir out-dir protocol protocol-size num-classes seed",
    "data phantom": "out-dir train test size num-classes",
    "data check": "data-dir data-name labels num-classes sheet",
    "data cache --clear": "cache-dir",
    "convert": "to weights precision trained-as",
    "data prepare": "data-dir image-size num-classes cache-dir",
    "train": "data-dir config image-size num-channels channel-mult lr microbatch attention-resolutions keep",
}


@seeds(120)
def test_odd_words(home, capfd, seed):
    rng = random.Random(seed)
    (home / "loop").symlink_to("loop")
    (home / "link").symlink_to("photos")
    os.mkfifo(home / "pipe")
    before = files(home)
    command = rng.choice(sorted(OPTIONS))
    words, _ = COMMANDS.get(command, (command.split(), []))
    if command == "train":
        words = ["train", "--out-dir", "photos/a.png/never"]
    if command == "convert":
        words = ["convert", rng.choice(("run", *WORDS)), rng.choice(("photos/b.pt", "photos/a.png", *WORDS))]
    options = OPTIONS[command].split()
    for option in rng.sample(options, min(len(options), rng.choice((1, 2, 3)))):
        words = [*words, f"--{option}", rng.choice(WORDS)]
    own = home / "out"
    run([*words, "--out-dir", own] if rng.random() < 0.5 and command in COMMANDS else words, capfd)
    after = files(home)
    assert {name: after.get(name) for name in before if MANIFEST not in name} == {
        name: content for name, content in before.items() if MANIFEST not in name
    }


@seeds(40)
def test_what_others_have_in_the_output_folder_stays(home, capfd, seed):
    rng = random.Random(seed)
    words, names = COMMANDS[rng.choice(sorted(COMMANDS))]
    out = home / "out"
    for name in rng.sample(names, 1 if words is PHANTOM else rng.choice((1, 2))):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = rng.choice(("file", "link", "dangling", "folder", "pipe"))
        if os.path.lexists(path) or kind == "folder":
            path.mkdir(exist_ok=True)
        elif kind == "file":
            path.write_bytes(rng.randbytes(50))
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(home / ("truth/a.png" if kind == "link" else "nowhere"))
    before = files(home)
    code = run([*words, "--out-dir", out, *(["--overwrite"] if words is SAMPLE else [])], capfd)
    after = files(home)
    assert {name: after.get(name) for name in before} == before
    if code:
        assert {name for name in after if name not in before} <= {f"out/{MANIFEST}"}


def results(folder):
    """What a command wrote, but for what is different each time."""
    return {name: content for name, content in files(folder).items() if name not in ("run.json", MANIFEST)}


@seeds(40)
def test_a_full_disk_leaves_the_earlier_results_or_the_new_ones(home, capfd, monkeypatch, seed):
    rng = random.Random(seed)
    words, _ = COMMANDS[rng.choice(("sample", "evaluate"))]
    words, out = [*words, "--out-dir", "out"], home / "out"
    if rng.random() < 0.5:
        assert run(words, capfd) == 0
    before, others = results(out), files(home / "photos")
    with monkeypatch.context() as patch:
        faults.install(patch, rng.randrange(1, 30), faults.full)
        code = run(words, capfd)
    assert files(home / "photos") == others
    assert not list(home.rglob(".*.tmp"))
    now = results(out)
    assert run(words, capfd) == 0
    assert now.items() <= results(out).items() if words[0] == "sample" else now in (before, results(out))
    assert code == 2 or now == results(out)
    assert not before or before == results(out)


@seeds(30)
def test_a_kill_at_any_moment_costs_nothing_but_time(home, capfd, monkeypatch, seed):
    rng = random.Random(seed)
    words, _ = COMMANDS[rng.choice(("sample", "evaluate", "data phantom"))]
    words, out = [*words, "--out-dir", "out"], home / "out"
    assert run([*words[:-1], "whole"], capfd) == 0
    child = os.fork()
    if not child:
        faults.install(monkeypatch, rng.randrange(1, 60), faults.killed)
        os._exit(main(words))
    os.waitpid(child, 0)
    assert {name: files(home).get(name) for name in ("photos/a.png", "truth/a.png")} == {
        "photos/a.png": (home / "photos/a.png").read_bytes(),
        "truth/a.png": (home / "truth/a.png").read_bytes(),
    }
    assert run(words, capfd) == 0
    assert results(out) == results(home / "whole")


@seeds(30)
def test_a_checkpoint_is_whole_or_absent_whatever_ends_its_writing(home, monkeypatch, seed):
    rng = random.Random(seed)
    arrays = {"weight": np.full((64, 64), 3, np.float32)}
    third = checkpoints.Checkpoint(3, CONFIG, {"model": arrays, "ema-0.9999": arrays}, {})
    fault = rng.choice((faults.full, faults.killed))
    child = os.fork()
    if not child:
        try:
            faults.install(monkeypatch, rng.randrange(1, 25), fault)
            checkpoints.save(home / "run", third, keep=rng.choice((0, 1, 2)))
        except InputError as error:
            os._exit("\n" in str(error) or "no space left" not in str(error))
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] in (0, 9)
    checkpoints.tidy(home / "run")
    newest, complaints = checkpoints.load_newest(home / "run")
    assert complaints == []
    assert newest.step in (2, 3)
    assert (newest.arrays["model"]["weight"] == newest.step).all()
    assert not list((home / "run").glob(".*"))
