"""What a user of Windows would meet, as far as Linux can tell: see `tests/windows.py`."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.test_layers import PACKAGE, SOURCES, WITHOUT_JITTOR, name_of

ROOT = PACKAGE.parent
onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))), reason="ONNX Runtime, an extra, is not installed"
)


def run(folder, code, windows=True, **environment):
    """Run Python code in `folder`, as Windows or as it is."""
    first = "from tests import windows\nwindows.begin()\n" if windows else ""
    warn = ["-X", "warn_default_encoding"] if windows else []
    places = {"PYTHONPATH": str(ROOT), "MEDSEGDIFF_CACHE": str(folder / "cache"), **environment}
    return subprocess.run(
        [sys.executable, *warn, "-c", first + code],
        cwd=folder,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=600,  # where others work too
        check=False,
    )


def test_all_but_what_computes_with_jittor_is_imported(tmp_path):
    layers = {*WITHOUT_JITTOR, "inference", "web", "app", "api.py", "__main__.py", "doctor", "runtime"}
    with_jittor = {"jittor_denoiser", "device_check", "warming", "backend", "trial"}
    if importlib.util.find_spec("gradio") is None:
        with_jittor.add("page")  # needs the extra
    paths = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in layers and path.stem not in with_jittor]
    assert len(paths) > 120
    code = f"import importlib\nfor name in {list(map(name_of, paths))!r}:\n    importlib.import_module(name)"
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr


COMMANDS = """
data phantom --out-dir data --train 2 --test 1 --size 96
data check --data-dir data
data prepare --data-dir data --image-size 64
sample --data-dir data --members 2 --out-dir out
sample --data-dir data --members 2 --out-dir out
evaluate --pred-path out --data-dir data --out-dir scores
sample --data-dir data --members 2 --steps 2 --out-dir out --overwrite --maps --save-members
report out --out page.html
convert isic small.safetensors
data cache --list
data cache --clear
doctor
"""
CODE = """
import shutil
from pathlib import Path
from medsegdiff.app.cli import main
for line in COMMANDS.strip().splitlines():
    assert main(line.split()) == 0, line

import medsegdiff
photo = next(Path("data").rglob("*Test_Data/*.jpg"))
found = medsegdiff.load("small.safetensors").segment(photo, members=2)
found.save("saved")
found.save("saved")

shutil.copy(photo, "con.jpg")
refused = ["train --data-dir data", "demo", "convert data out.safetensors", "sample --images con.jpg"]
refused += [f"sample --images {photo} {words}" for words in ("--backend jittor", "--out-dir a?b", "--model-path nul")]
for words in refused:
    assert main(words.split()) == 2, words
assert not Path("demo").exists()
"""
REFUSALS = """\
error: Windows on AMD64: Jittor runs on Linux on x86-64; use WSL 2, or to segment ONNX Runtime (pip install 'medseg
error: Windows on AMD64: Jittor runs on Linux on x86-64; use WSL 2, or to segment ONNX Runtime (pip install 'medseg
error: data: holds no checkpoint
error: image id 'con': cannot be a file's name on this system; rename it
error: Windows on AMD64: Jittor runs on Linux on x86-64; use WSL 2, or to segment ONNX Runtime (pip install 'medseg
error: a?b: cannot be written: its file system takes no such name; choose another
error: nul: no such
"""


@onnx
def test_images_are_segmented_and_scored_and_refusals_are_one_line(tmp_path):
    there = run(tmp_path, f"COMMANDS = {COMMANDS!r}\n{CODE}", PATH="")
    assert there.returncode == 0, there.stderr
    assert "ready to segment, with ONNX Runtime; not to train" in there.stdout
    said = [line for line in there.stderr.splitlines() if not line.startswith("note: ONNX Runtime computes")]
    for line, wanted in zip(said[-7:], REFUSALS.splitlines()):
        assert line.startswith(wanted)
    sample = "sample --data-dir data --members 2 --steps 2 --out-dir linux --maps --save-members --backend onnx"
    here = run(tmp_path, f"from medsegdiff.app.cli import main\nassert main({sample.split()!r}) == 0", windows=False)
    assert here.returncode == 0, here.stderr
    linux, windows = (
        {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.png")} for out in ("linux", "out")
    )
    assert len(windows) == 8
    assert windows == linux
