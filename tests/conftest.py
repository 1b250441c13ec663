"""Kernels compiled for another processor than this one: MEDSEGDIFF_TUNING="-march=haswell" pytest tests/kernels."""

import os
import signal
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medsegdiff.base import reading
from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig

TUNING = os.environ.get("MEDSEGDIFF_TUNING")


def pytest_configure():
    # A shell that starts the tests in the background leaves these ignored, and tests of signals would wait in vain.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if TUNING:
        from medsegdiff.runtime import compilation
        from medsegdiff.runtime.backend import jt

        # Jittor's core stays as it is; only its kernels are compiled anew, apart from the usual ones.
        usual, tuned = Path(jt.flags.cache_path), Path(jt.flags.cache_path, f"tuned-{zlib.crc32(TUNING.encode()):08x}")
        for name in ("jit", "obj_files", "tmp"):
            (tuned / name).mkdir(parents=True, exist_ok=True)
        header = compilation.precompiled(compilation.KERNEL_HEADER, tuned, TUNING)
        flags = jt.flags.cc_flags.replace(str(usual / "medsegdiff" / header.name), str(header))
        jt.flags.cc_flags, jt.flags.cache_path = f"{flags} {TUNING} ", str(tuned)


@pytest.fixture(autouse=True)
def first_notes(monkeypatch):
    """Each test gets the notes on files that a new process gives."""
    monkeypatch.setattr(reading, "_counts", reading.Counter())
    monkeypatch.setattr(reading, "_seen", set())


# What takes longest, by processor time, begins first, so that processes that share the tests end together.
LONGEST = (
    "parity/test_parity",
    "e2e/test_mpi",
    "benchmarks/test_torch_network",
    "e2e/test_sigkill",
    "training/test_loop",
    "training/test_processors",
    "training/test_trainer",
    "e2e/test_datasets",
    "benchmarks/test_precision",
    "benchmarks/test_gradients",
    "kernels/cpu/test_convolution",
    "e2e/test_commands",
    "inference/test_segmenter",
    "fuzz/test_commands",
)


def pytest_collection_modifyitems(items):
    place = {f"tests/{name}.py": index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(LONGEST)))


def pytest_report_header():
    return f"kernels compiled with {TUNING}" if TUNING else None


class Discs:
    """Six bright discs on noise, shaped like a prepared dataset."""

    def __init__(self, count=6, size=32):
        self.ids = [f"disc-{i}" for i in range(count)]
        self.original_sizes = [(size, size)] * count
        self.fingerprint = "discs"
        y, x = np.mgrid[:size, :size]
        self._masks = [(((y - 12 - i) ** 2 + (x - 16) ** 2) < 40)[None].astype(np.float32) for i in range(count)]

    def __len__(self):
        return len(self.ids)

    def mask(self, index):
        return self._masks[index]

    def image(self, index):
        noise = generator("disc", index).random((3, 32, 32), dtype=np.float32)
        return np.clip(0.3 * noise + 0.6 * self._masks[index], 0, 1).astype(np.float32)


@pytest.fixture(scope="session")
def discs():
    return Discs()


@pytest.fixture
def config(tmp_path):
    """A 32-pixel run that fits any machine."""
    return RunConfig(
        network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1),
        diffusion=DiffusionConfig(diffusion_steps=30),
        training=TrainingConfig(
            out_dir=str(tmp_path / "run"),
            steps=4,
            batch_size=2,
            lr=1e-3,
            log_interval=2,
            save_interval=2,
            tensorboard=False,
            schedule_sampler="loss-second-moment",
        ),
    )


@pytest.fixture
def precisions_seen(monkeypatch):
    """What the networks' convolutions are asked to compute in; they do so in float32, as any machine can."""
    from medsegdiff.kernels import operations, precision
    from medsegdiff.nn import layers

    seen, original = [], operations.conv2d

    def conv2d(*given, **options):
        seen.append(precision.current())
        with precision.using("fp32"):
            return original(*given, **options)

    monkeypatch.setattr(precision, "unavailable", lambda name: "")
    monkeypatch.setattr(layers, "conv2d", conv2d)
    return seen


@pytest.fixture
def spaces():
    """Small named arrays, as a checkpoint holds them."""
    return SimpleNamespace(
        model={"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.float32([1, -1])},
        other={"a.weight": np.full((2, 3), 7, np.float32), "a.bias": np.float32([0, 0])},
    )


@pytest.fixture
def make_series(tmp_path):
    """A function that writes a DICOM series, see `tests.dicom_series`."""
    from tests.dicom_series import maker

    return maker(tmp_path)
