import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.inference import jittor_denoiser
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.nn.versions import build_network
from tests.nn.filled import arrays_of, fill
from tests.processor import needs_bf16


def test_weights_that_do_not_fit_are_refused_before_a_network_of_any_size_is_made(monkeypatch):
    monkeypatch.setattr(jittor_denoiser, "build_network", None)
    config = RunConfig(NetworkConfig(num_channels=2048, channel_mult="4,4,4,4", num_res_blocks=32))
    with pytest.raises(InputError, match=r"^here: does not fit .* missing: .*; 1 unknown: a$"):
        jittor_denoiser.load_denoiser(Weights(config, {"a": np.zeros(1, np.float32)}, "here"))


@pytest.mark.parametrize("inside", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_a_loaded_network_of_version_v2_says_what_the_one_with_all_weights_says(inside):
    options = {"image_size": 32, "num_channels": 32, "channel_mult": "1,1,1", "num_res_blocks": 1}
    config = NetworkConfig(version="v2", ssformer_blocks=1, **options)
    network = fill(build_network(config))
    loaded = jittor_denoiser.load_denoiser(Weights(RunConfig(config), arrays_of(network), "here"), inside)
    assert (loaded.network.ssformer.out.weight is None) == (inside == "bf16")
    rng = np.random.default_rng(0)
    image, mask = (rng.random((2, channels, 32, 32), np.float32) for channels in (3, 1))
    found, wanted = (x.denoise(mask, 7, x.encode(image)) for x in (loaded, JittorDenoiser(network, inside)))
    for ours, theirs in zip(found, wanted):
        np.testing.assert_array_equal(ours, theirs)
