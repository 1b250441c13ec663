import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.inference.onnx_denoiser import load_onnx
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.parity.cases import parameter

SMALL = {"image_size": 32, "num_channels": 32, "channel_mult": "1,1", "num_res_blocks": 1}
CONFIGS = {
    "new": NetworkConfig(**SMALL),
    "v1": NetworkConfig(**SMALL, version="v1"),
    "v2": NetworkConfig(**{**SMALL, "channel_mult": "1,1,1"}, version="v2", ssformer_blocks=1),
    "plain": NetworkConfig(**SMALL, learn_sigma=False, num_classes=3),
}


def weights_of(network):
    config = RunConfig(network=network, diffusion=DiffusionConfig(diffusion_steps=30, predict_xstart=True))
    return Weights(config, {name: parameter(name, shape) for name, shape in shapes(network).items()}, "here")


def segment(denoiser, config, count, members, **options):
    rng = np.random.default_rng(0)
    images = rng.random((count, 3, 32, 32), np.float32)
    sampling = SamplingConfig(members=members, steps=2, **options)
    segmenter = BatchSegmenter(denoiser, config.diffusion, sampling)
    found = segmenter.segment([str(index) for index in range(count)], lambda i: images[i], keep_members=True)
    return {result.id: result for result in found}


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_those_of_jittor(name):
    from medsegdiff.inference import jittor_denoiser

    weights = weights_of(CONFIGS[name])
    ours = segment(load_onnx(weights), weights.config, 2, 2)
    theirs = segment(jittor_denoiser.load_denoiser(weights), weights.config, 2, 2)
    assert load_onnx(weights).mask_shape == (CONFIGS[name].mask_channels, 32, 32)
    for id, result in theirs.items():
        np.testing.assert_allclose(ours[id].members, result.members, rtol=0, atol=2e-4)
        np.testing.assert_allclose(ours[id].cal, result.cal, rtol=0, atol=2e-4)


def test_onnx_runtime_may_be_installed_by_another_name(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("medsegdiff.inference.onnx_denoiser.version", version)
    assert re.fullmatch(r"ONNX Runtime \d+\.\S+", load_onnx(weights_of(CONFIGS["new"])).backend)


def test_onnx_runtime_keeps_nothing_in_the_users_home(tmp_path):
    """By itself it tells its maker of its use, and numbers the machine for that."""
    code = "import sys; from medsegdiff.app.cli import main; sys.exit(main(sys.argv[1:]))"
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    words = [
        "sample",
        "--images",
        "a.png",
        "--out-dir",
        "out",
        "--backend",
        "onnx",
        "--members",
        "1",
        "--cache-dir",
        "c",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["HOME"] = str(tmp_path / "home")
    subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.glob("home/**/*onnx*"))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("precision", "most"), [("fp32", 2e-4), ("bf16", 0.1)])
def test_masks_of_openvino_are_those_of_onnx_runtime(name, precision, most):
    pytest.importorskip("openvino", reason="OpenVINO, an extra, is not installed")
    weights = weights_of(CONFIGS[name])
    denoiser = load_onnx(weights, precision, "openvino")
    assert denoiser.backend.startswith("OpenVINO 20")
    found, again = (segment(denoiser, weights.config, 2, 2) for _ in range(2))
    for id, result in segment(load_onnx(weights), weights.config, 2, 2).items():
        np.testing.assert_array_equal(found[id].members, again[id].members)
        np.testing.assert_allclose(found[id].members, result.members, rtol=0, atol=most)
        np.testing.assert_allclose(found[id].cal, result.cal, rtol=0, atol=most)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_is_the_same_in_any_batch(name, backend):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO, an extra, is not installed")
    weights = weights_of(CONFIGS[name])
    denoiser = load_onnx(weights, backend=backend)
    together = segment(denoiser, weights.config, 3, 3, batch_size=9)
    for batch_size in (1, 2):
        for id, result in segment(denoiser, weights.config, 3, 3, batch_size=batch_size).items():
            np.testing.assert_array_equal(result.members, together[id].members)


def test_weights_that_do_not_fit_are_refused():
    weights = weights_of(CONFIGS["new"])
    del weights.arrays["out.0.bias"]
    with pytest.raises(InputError, match=r"here: does not fit the network of its options; 1 missing: out\.0\.bias"):
        load_onnx(weights)
