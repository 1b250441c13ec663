import subprocess
import sys

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.base.machine import Cpu
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.inference import backends


@pytest.fixture
def machine(monkeypatch):
    """Arranges what is there: packages, why Jittor is not ready, the number of processes."""

    def arrange(missing=(), unready="", processes=1, flags=("avx512_bf16",)):
        monkeypatch.setattr(backends.machine, "cpu", lambda: Cpu("A", frozenset(flags)))
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(backends, "is_installed", lambda name: name not in missing)
        monkeypatch.setattr(backends, "unready", lambda: unready)
        monkeypatch.setattr(backends.ranks, "count", lambda: processes)
        monkeypatch.setattr(backends.formats, "unavailable", lambda name: "")

    return arrange


@pytest.mark.parametrize(
    ("given", "arranged", "chosen"),
    [
        (("auto",), {}, "jittor"),
        (("auto",), {"unready": "g++ not found"}, "onnx"),
        (
            ("auto",),
            {"unready": "g++ not found", "missing": ["onnxruntime"]},
            "jittor",
        ),  # which then says what it lacks
        (("auto", "bf16"), {"unready": "not compiled"}, "jittor"),
        (("auto",), {"unready": "not compiled", "processes": 2}, "jittor"),
        (("jittor",), {"unready": "not compiled"}, "jittor"),
        (("onnx",), {}, "onnx"),
        (("onnx", "fp16"), {}, "onnx"),
        (("openvino",), {"missing": ["onnxruntime"]}, "openvino"),
        (("openvino", "bf16"), {}, "openvino"),
    ],
)
def test_what_computes(machine, capsys, given, arranged, chosen):
    machine(**arranged)
    assert backends.choose(*given) == chosen
    told = capsys.readouterr().err
    if chosen == "onnx" and given[0] == "auto":
        assert told == f"note: ONNX Runtime computes the network: {arranged['unready']}\n"
    else:
        assert told == ""


@pytest.mark.parametrize(
    ("given", "arranged", "said"),
    [
        (
            ("onnx",),
            {"missing": ["onnx", "onnxruntime"]},
            "onnx and onnxruntime not installed: pip install 'medsegdiff-jittor[onnx]'",
        ),
        (("onnx", "bf16"), {}, "backend onnx: ONNX Runtime lacks bf16"),
        (("openvino",), {"missing": ["openvino"]}, "pip install 'medsegdiff-jittor[openvino]'; or use that of Jittor"),
        (("openvino", "fp16"), {}, "backend openvino: OpenVINO lacks fp16"),
        (("openvino", "bf16"), {"flags": ["avx512f"]}, "backend openvino: the CPU (A) lacks AVX512-BF16; use fp32"),
        (("onnx", "float32"), {}, "precision float32: must be one of fp32, bf16, fp16"),
        (("torch",), {}, "backend torch: must be one of auto, jittor, onnx, openvino"),
    ],
)
def test_what_cannot_be_had_is_said(machine, given, arranged, said):
    machine(**arranged)
    with pytest.raises(InputError) as caught:
        backends.choose(*given)
    assert said in str(caught.value)


def test_a_folder_of_a_package_s_name_is_not_the_package(monkeypatch, tmp_path):
    (tmp_path / "openvinny").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not backends.is_installed("openvinny") and not backends.is_installed("nowhere")
    assert backends.is_installed("numpy")


def test_a_package_that_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "medsegdiff.inference.onnx_denoiser", None)
    with pytest.raises(
        InputError, match=r"backend onnx: cannot be imported .*; install it anew: pip install"
    ) as caught:
        backends.load_denoiser(Weights(RunConfig(), {}, "here"), "onnx")
    assert "\n" not in str(caught.value)


def test_a_network_that_wants_labels_is_refused():
    weights = Weights(RunConfig(network=NetworkConfig(class_cond=True)), {}, "here")
    for backend in ("jittor", "onnx", "openvino"):
        with pytest.raises(InputError, match="here: a network that takes class labels"):
            backends.load_denoiser(weights, backend)


def test_a_photo_is_segmented_where_there_is_no_jittor(tmp_path):
    pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")
    code = """
import importlib.metadata, sys
from pathlib import Path
import numpy as np
from PIL import Image

sys.modules.update({name: None for name in ("jittor", "jittor_utils", "torch")})
version = importlib.metadata.version
def without_jittor(name):
    if name == "jittor":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without_jittor

import medsegdiff
from medsegdiff.app.cli import main
from medsegdiff.checkpoints.folder import Checkpoint, save
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.parity.cases import parameter

network = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
arrays = {name: parameter(name, shape) for name, shape in shapes(network).items()}
Path("run").mkdir()
save(Path("run"), Checkpoint(1, RunConfig(network=network), {"model": arrays}, {}))
Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save("photo.png")
assert main(["sample", "--model-path", "run", "--images", "photo.png", "--members", "2", "--steps", "2"]) == 0
assert Image.open("predictions/photo.png").size == (50, 40)
result = medsegdiff.load("run").segment("photo.png", members=2, steps=2)
assert (result.mask == np.asarray(Image.open("predictions/photo.png")) // 255).all()
assert "ONNX Runtime" in Path("predictions/run.json").read_text()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: ONNX Runtime computes the network: Jittor: missing") == 2


def test_jittor_is_ready_where_it_is_whole_and_compiled(monkeypatch):
    monkeypatch.setattr(backends.requirements, "check", lambda: None)
    monkeypatch.setattr(backends.toolchain, "is_compiled", lambda: True)
    assert backends.unready() == ""
    monkeypatch.setattr(backends.toolchain, "is_compiled", lambda: False)
    assert backends.unready().startswith("Jittor is not compiled here yet")

    def lacking():
        raise InputError("g++: missing")

    for place, name in ((backends.toolchain, "is_compiled"), (backends.requirements, "check")):
        monkeypatch.setattr(place, name, lacking)
        assert backends.unready() == "g++: missing"
