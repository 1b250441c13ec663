import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.inference import jittor_denoiser


def test_weights_that_do_not_fit_are_refused_before_a_network_of_any_size_is_made(monkeypatch):
    monkeypatch.setattr(jittor_denoiser, "build_network", None)
    config = RunConfig(NetworkConfig(num_channels=2048, channel_mult="4,4,4,4", num_res_blocks=32))
    with pytest.raises(InputError, match=r"^here: does not fit .* missing: .*; 1 unknown: a$"):
        jittor_denoiser.load_denoiser(Weights(config, {"a": np.zeros(1, np.float32)}, "here"))
