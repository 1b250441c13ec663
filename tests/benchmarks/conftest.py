import pytest

from benchmarks.trained import Trained
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.data.phantom import write_isic
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.nn.versions import build_network
from medsegdiff.nn.weights import state

IMAGES = 3


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """Generated images and a random network that segments them in at most 8 steps, as options of a benchmark."""
    folder = tmp_path_factory.mktemp("benchmarks")
    write_isic(folder / "isic", train=4, test=IMAGES, size=64)
    config = RunConfig(
        network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1),
        diffusion=DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True),
    )
    network = build_network(config.network).initialise(1)
    network.out[2].weight.assign(network.out[2].weight + 0.05)  # it starts at zero: all masks would be alike
    arrays = {"model": {name: value.numpy() for name, value in state(network).items()}}
    (folder / "run").mkdir()
    checkpoints.save(folder / "run", checkpoints.Checkpoint(12, config, arrays, training={}))
    return ["--model-path", str(folder / "run"), "--data-dir", str(folder / "isic")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sampled(monkeypatch):
    """What is sampled: the sampler, its steps and the images of each call."""
    calls, segment = [], Trained.segment

    def spy(self, sampling, ids):
        calls.append((sampling.sampler, sampling.steps, list(ids)))
        return segment(self, sampling, ids)

    monkeypatch.setattr(Trained, "segment", spy)
    return calls
