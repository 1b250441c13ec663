"""Compiling ahead of time: networks sample and train on noise once, so that later runs find their kernels compiled."""

from __future__ import annotations

import dataclasses

import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.nn.versions import build_network
from medsegdiff.training.dry_run import noise_batch
from medsegdiff.training.trainer import Trainer


def warm_sampling(config: RunConfig) -> None:
    """Compile what sampling with the network of `config` needs: for single masks, ensembles and several images."""
    denoiser = JittorDenoiser(build_network(config.network).initialise().only_segment())
    shape = (config.network.image_channels, config.network.image_size, config.network.image_size)
    for images, members in ((1, 1), (1, 2), (2, 2)):  # kernels differ where a length is 1
        segmenter = BatchSegmenter(denoiser, config.diffusion, SamplingConfig(members=members, steps=2))
        names = [str(index) for index in range(images)]
        for _ in segmenter.segment(names, lambda index: generator("warming", index).random(shape, np.float32)):
            pass


def warm_training(config: RunConfig) -> None:
    """Compile what training the network of `config` needs, for batches of at least two images."""
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, batch_size=2, microbatch=-1))
    trainer = Trainer(config)
    for step in range(2):  # the second one has moments and averages to go on from
        trainer.train_step(noise_batch(config, step))


WARMINGS = {"sample": warm_sampling, "train": warm_training}
