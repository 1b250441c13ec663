"""The networks in PyTorch with weights of `medsegdiff convert RUN FILE.safetensors`; see README.md beside it."""

import json

from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks.torch_network import TorchMedSegDiff
from benchmarks.torch_v2 import twin
from medsegdiff.config.run import RunConfig


def load(path) -> TorchMedSegDiff:
    """The network in a `.safetensors` file, in evaluation mode; strictly, with every weight in its place."""
    with safe_open(path, "pt") as file:
        config = RunConfig.from_flat(json.loads(file.metadata()["config"]))
    network = twin(config.network)
    network.load_state_dict(load_file(path))
    return network.eval()
