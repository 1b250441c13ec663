import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")

from examples.pytorch.load import load  # noqa: E402
from medsegdiff.inference.onnx_denoiser import load_onnx  # noqa: E402


@pytest.mark.parametrize(("version", "levels"), [("new", "1,1"), ("v1", "1,1"), ("v2", "1,1,1,1")])
def test_our_weights_in_pytorch_give_what_they_give_here(exported, version, levels):
    path, weights = exported("safetensors", "a.safetensors", version=version, channel_mult=levels)
    rng = np.random.default_rng(0)
    image, mask = rng.random((2, 3, 32, 32), np.float32), rng.standard_normal((2, 1, 32, 32), np.float32)
    with torch.inference_mode():
        network = load(path)
        prediction = network(torch.from_numpy(image), torch.from_numpy(mask), torch.tensor([7.0, 7.0]))
    denoiser = load_onnx(weights)
    wanted = denoiser.denoise(mask, 7, denoiser.encode(image))
    for ours, theirs in zip(prediction, wanted):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=2e-4)
    path.write_bytes(path.read_bytes().replace(b"out.2.bias", b"out.2.bios"))
    with pytest.raises(RuntimeError, match="Missing key"):
        load(path)
