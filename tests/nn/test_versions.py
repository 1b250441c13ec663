from typing import get_args

from medsegdiff.config.network import NetworkConfig, Version
from medsegdiff.nn.versions import NETWORKS, build_network


def test_every_version_that_can_be_chosen_has_its_network():
    assert set(NETWORKS) == set(get_args(Version))
    for version, kind in NETWORKS.items():
        assert type(build_network(NetworkConfig(image_size=32, num_channels=32, version=version))) is kind
