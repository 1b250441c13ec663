import numpy as np
import pytest

from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig

CONFIG = RunConfig(network=NetworkConfig(image_size=64))


def spoilt(arrays, value=np.nan):
    """Small arrays, one of which holds a number that is not finite."""
    return {**arrays, "a.bias": np.float32([1, value])}


@pytest.fixture
def run(tmp_path, spaces):
    for step in (2, 10, 9):
        arrays = {"model": spaces.model, "ema-0.9999": spaces.other, "optimizer": {"mean:a": np.float32([step])}}
        checkpoints.save(tmp_path, Checkpoint(step, CONFIG, arrays, {"log": {"loss": [1.5, 2]}}, "abc"))
    return tmp_path


@pytest.fixture
def from_before(run, spaces, monkeypatch):
    """A run whose newest checkpoint was written when nothing was checked."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "broken", lambda arrays: "")
        arrays = {"model": spoilt(spaces.model), "ema-0.9999": spaces.other, "optimizer": {}}
        checkpoints.save(run, Checkpoint(12, CONFIG, arrays, {}))
    return run
