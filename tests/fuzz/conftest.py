"""What every case must keep: it ends within a minute, and takes less than 2 GB of memory.

On a machine that does much else MEDSEGDIFF_FUZZ_SECONDS=600 gives them longer.
"""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.ownership import MANIFEST
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.data.phantom import write_isic
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.inference import jittor_denoiser
from medsegdiff.io.predictions import Maps, write_prediction
from tests.fake_denoiser import Bright
from tests.fuzz.test_reading import DISC, RGB

CONFIG = RunConfig(
    network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1),
    diffusion=DiffusionConfig(diffusion_steps=30, predict_xstart=True),
)
LONGEST = int(os.environ.get("MEDSEGDIFF_FUZZ_SECONDS", "60"))
MOST_MEMORY = 2_000_000  # kB
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak():
    """kB of memory that this process had at most since the peak was forgotten."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[1])


def too_long(*_):
    raise TimeoutError(f"a case took more than {LONGEST} seconds")


@pytest.fixture(autouse=True)
def bounded():
    with contextlib.suppress(OSError):  # other tests' peak; in some containers it cannot be forgotten
        REFERENCES.write_text("5")
    held = peak()  # for the tests that this process ran before
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert peak() - held < MOST_MEMORY


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A user's folder: photos, ground truth, predictions, a training of two checkpoints, a dataset."""
    home = tmp_path_factory.mktemp("fuzz")
    for name in ("photos", "truth", "run"):
        (home / name).mkdir()
    for id in ("a", "b", "c"):
        Image.fromarray(RGB).save(home / f"photos/{id}.png")
        Image.fromarray(DISC).save(home / f"truth/{id}.png")
        write_prediction(home / "predictions", id, Maps(DISC[None].astype(np.float32)))
    (home / "predictions" / MANIFEST).unlink()  # as if they were the user's
    for step in (1, 2):
        arrays = {"weight": np.full((64, 64), step, np.float32)}
        checkpoints.save(
            home / "run", checkpoints.Checkpoint(step, CONFIG, {"model": arrays, "ema-0.9999": arrays}, {})
        )
    write_isic(home / "isic", train=2, test=1, size=32)
    return home


@pytest.fixture
def home(original, tmp_path, monkeypatch):
    """A copy of it, where commands run; the network is a stand-in."""
    shutil.copytree(original, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jittor_denoiser, "load_denoiser", lambda *_: Bright(32))
    return tmp_path / "home"
