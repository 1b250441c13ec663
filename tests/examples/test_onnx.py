import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")

from examples.onnx import segment
from medsegdiff.diffusion import samplers
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.inference.onnx_denoiser import load_onnx


@pytest.mark.parametrize("target", [None, "predict_xstart", "predict_v"])
def test_it_samples_as_the_package_does(exported, monkeypatch, target):
    folder, weights = exported("onnx", "onnx", target)
    monkeypatch.setattr(segment, "STEPS", 30)  # all of them
    image = np.random.default_rng(1).random((3, 32, 32), np.float32)
    denoiser = load_onnx(weights)
    condition = denoiser.gather([denoiser.encode(image[None])], [0] * segment.MEMBERS)
    noise = np.random.default_rng(0).standard_normal((segment.MEMBERS, 1, 32, 32), np.float32)
    states = samplers.ddim(
        lambda x, t: denoiser.denoise(x, t, condition), Diffusion(weights.config.diffusion), lambda draw: noise
    )
    wanted = np.clip(samplers.final(states).x, 0, 1).mean(axis=0)
    assert 0.01 < wanted.mean() < 0.99
    np.testing.assert_allclose(segment.sample(folder, image), wanted, rtol=0, atol=1e-3)


def test_a_photo_gets_a_mask_of_its_size(exported, tmp_path):
    folder, _ = exported("onnx", "onnx")
    Image.new("RGB", (50, 40), (200, 150, 120)).save(tmp_path / "photo.jpg")
    segment.main(folder, tmp_path / "photo.jpg", tmp_path / "mask.png")
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (40, 50)
    assert set(np.unique(mask)) <= {0, 255}


def test_it_is_short_and_needs_no_more_than_it_says():
    text = Path(segment.__file__).read_text()
    assert text.count("\n") <= 60
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys", "numpy", "onnxruntime"}
