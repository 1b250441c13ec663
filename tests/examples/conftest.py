import pytest

from medsegdiff.checkpoints.export import export
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.parity.cases import parameter


@pytest.fixture
def exported(tmp_path):
    """Writes a network as a file or folder of a kind; returns its place and its weights."""

    def exported(kind, name, target=None, **options):
        options = {"channel_mult": "1,1", **options}
        diffusion = DiffusionConfig(diffusion_steps=30, mask_scale=0.5, **{target: True} if target else {})
        network = NetworkConfig(image_size=32, num_channels=32, num_res_blocks=1, **options)
        config = RunConfig(network=network, diffusion=diffusion)
        source = tmp_path / "source"
        source.write_text("weights")
        arrays = {name: parameter(name, shape) for name, shape in shapes(network).items()}
        weights = Weights(config, arrays, str(source))
        export(weights, tmp_path / name, kind)
        return tmp_path / name, weights

    return exported
