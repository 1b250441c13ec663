"""The versions of the network."""

from __future__ import annotations

from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.new import AnchorNetwork
from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.nn.v1 import DynamicNetwork
from medsegdiff.nn.v2 import SpectrumNetwork

NETWORKS: dict[str, type[MedSegDiff]] = {"new": AnchorNetwork, "v1": DynamicNetwork, "v2": SpectrumNetwork}
"""By the name that the option `version` has."""


def build_network(config: NetworkConfig) -> MedSegDiff:
    """The network of these options; its weights are zero until `initialise` draws them or others are loaded."""
    return NETWORKS[config.version](config)
