"""Short trainings of every version, at a size where every kernel is threaded and vectorised."""

import dataclasses

import numpy as np
import pytest

from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.data.loader import Batch
from medsegdiff.training.trainer import Trainer
from tests.processor import SUBNORMALS, needs_bf16, with_subnormals
from tests.training.variants import with_training

STEPS, SAVED = 4, 2


def batch(step):
    """Two images of 64 x 64 with a bright disc each."""
    y, x = np.mgrid[:64, :64]
    masks = np.stack([((y - 24 - 9 * i) ** 2 + (x - 20 - 5 * step) ** 2 < 150)[None] for i in range(2)])
    noise = generator("batch", step).random((2, 3, 64, 64), dtype=np.float32)
    return Batch(np.float32(0.3 * noise + 0.6 * masks), np.float32(masks))


def trained(config):
    """The trainer after all steps, the checkpoint it left half-way, and the norms of each step."""
    trainer, norms, saved = Trainer(config), [], None
    for step in range(STEPS):
        if step == SAVED:
            saved = trainer.checkpoint()
        result = trainer.train_step(batch(step))
        assert not result.skipped
        norms.append(result.norms)
    return trainer, saved, norms


def resumed(config, saved):
    trainer = Trainer(config)
    trainer.restore(saved)
    for step in range(SAVED, STEPS):
        trainer.train_step(batch(step))
    return trainer


@SUBNORMALS
@pytest.mark.parametrize(
    ("version", "precision"),
    [
        *(("new", "fp32"), ("v1", "fp32"), ("v2", "fp32")),
        *(pytest.param(version, "bf16", marks=needs_bf16) for version in ("new", "v2")),
    ],
)
def test_every_version_trains_and_resumes_to_the_last_bit_of_both_moments(config, version, precision, flush):
    network = NetworkConfig(image_size=64, num_channels=32, version=version)
    config = with_training(dataclasses.replace(config, network=network), lr=1e-3, precision=precision)
    trainer, saved, norms = with_subnormals(flush, trained, config)
    assert max(np.prod(value.shape) for value in trainer.parameters.values()) > 16_384
    assert all(np.isfinite([norm["grad_norm"], norm["param_norm"]]).all() for norm in norms)
    whole, again = trainer.checkpoint(), with_subnormals(flush, resumed, config, saved).checkpoint()
    for group, arrays in whole.arrays.items():
        for name, array in arrays.items():
            assert np.isfinite(array).all(), f"{group}: {name}"
            assert array.tobytes() == again.arrays[group][name].tobytes(), f"{group}: {name}"
