import dataclasses
from typing import get_args

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig, difference
from medsegdiff.config.sampling import Fusion, SamplingConfig
from medsegdiff.config.training import TimestepSampler, TrainingConfig, ValidationConfig
from medsegdiff.diffusion.process import DiffusionConfig, NoiseSchedule
from medsegdiff.diffusion.timesteps import TIMESTEPS
from medsegdiff.masks.fusion import RULES


def test_no_option_name_occurs_in_two_sections_so_the_flat_form_loses_nothing():
    sections = (NetworkConfig, DiffusionConfig, DataConfig, TrainingConfig, ValidationConfig)
    names = [f.name for section in sections for f in dataclasses.fields(section)]
    assert len(names) == len(set(names))
    config = RunConfig(NetworkConfig(image_size=64), DiffusionConfig(diffusion_steps=50), DataConfig(augment=True))
    assert RunConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("section", "options", "word"),
    [
        (TrainingConfig, {"steps": 0}, "steps 0"),
        (DiffusionConfig, {"diffusion_steps": 1, "noise_schedule": "cosine"}, "diffusion_steps 1: must be at least 2"),
        (SamplingConfig, {"sampler": "euler"}, "sampler euler: must be one of ddpm"),
        (SamplingConfig, {"fusion": "median"}, "fusion median: must be one of mean"),
        (SamplingConfig, {"control": "noise"}, "control noise: must be one of shuffle-noise, no-noise"),
        (SamplingConfig, {"threshold": 1.5}, "threshold 1.5"),
        (SamplingConfig, {"until": 0.0}, "until 0.0"),
        (SamplingConfig, {"steps": -1}, "steps -1"),
        (SamplingConfig, {"sampler": "sde-dpm++", "timestep_respacing": "5"}, "timestep_respacing"),
        (TrainingConfig, {"lr": -1.0}, "lr -1.0"),
        (TrainingConfig, {"lr": 0.0}, "lr 0.0: must be at least 1e-12"),
        (TrainingConfig, {"lr": 1e4}, "lr 10000.0: must be at most 1"),
        (TrainingConfig, {"seed": -1}, "seed -1: must not be negative"),
        (TrainingConfig, {"weight_decay": 1e4}, "weight_decay 10000.0: must be at most 1000"),
        (TrainingConfig, {"dice_weight": 1e4}, "dice_weight 10000.0: must be at most 1000"),
        (TrainingConfig, {"fp16_scale_growth": float("nan")}, "fp16_scale_growth nan"),
        (SamplingConfig, {"seed": -1}, "seed -1: must not be negative"),
        (SamplingConfig, {"until": 5.0}, "until 5.0: must be at most 1"),
        (TrainingConfig, {"lr": float("nan")}, "lr nan"),
        (TrainingConfig, {"ema_rate": "0.9,x"}, "ema_rate"),
        (TrainingConfig, {"ema_rate": "1.0"}, "ema_rate"),
        (TrainingConfig, {"ema_rate": "0.9," * 9}, "ema_rate .* at most 8"),
        (TrainingConfig, {"clip_grad": -1.0}, "clip_grad -1.0"),
        (TrainingConfig, {"warmup_steps": -1}, "warmup_steps -1"),
        (TrainingConfig, {"lr_schedule": "step"}, "lr_schedule step: must be one of constant, linear, cosine"),
        (TrainingConfig, {"lr_schedule": "constant", "lr_anneal_steps": 5}, "contradicts lr_schedule constant"),
        (TrainingConfig, {"lr_anneal_steps": 5, "warmup_steps": 5}, "warmup_steps 5: must be less than the 5"),
        (TrainingConfig, {"lr": 0.5, "weight_decay": 2.0}, "weight_decay 2.0: times lr 0.5 it must be less than 1"),
        (TrainingConfig, {"decay": "weights"}, "decay weights"),
        (ValidationConfig, {"val_interval": -1}, "val_interval -1"),
        (ValidationConfig, {"val_fraction": 1.0}, "val_fraction 1.0"),
        (ValidationConfig, {"val_steps": 1}, "val_steps 1: must be at least 2"),
        (ValidationConfig, {"patience": 3}, "patience 3: counts validations; give val_interval too"),
        (DataConfig, {"data_name": "lidc"}, "data_name lidc"),
        (DataConfig, {"mask_resize": "cubic"}, "mask_resize cubic"),
        (DataConfig, {"augment": True, "augment_strength": 1.5}, "augment_strength 1.5: must be from 0 to 1"),
        (DataConfig, {"augment": True, "augment_hair": -0.1}, "augment_hair -0.1: must be from 0 to 1"),
        (DataConfig, {"augment_strength": 0.5}, "augment_strength 0.5: has an effect with augment only"),
        (TrainingConfig, {"dice_weight": -1.0}, "dice_weight -1.0"),
        (NetworkConfig, {"cond_dropout": 1.0}, "cond_dropout 1.0: must be at least 0 and less than 1"),
        (SamplingConfig, {"sampler": "euler"}, "sampler euler"),
        (SamplingConfig, {"members": 0}, "members 0"),
        (SamplingConfig, {"members": 3, "tta": True}, "tta: needs a member for each of the 4 flips"),
        (SamplingConfig, {"members": "3..25", "tta": True}, "members is 3..25; give at least 4"),
        (SamplingConfig, {"eta": 2.0}, "eta 2.0"),
        (
            SamplingConfig,
            {"threshold": 0.995},
            r"threshold 0.995: has an effect with sampler dpm\+\+ and sde-dpm\+\+ only",
        ),
        (SamplingConfig, {"until": 0.1}, "until 0.1: has an effect with a range of members"),
        (DiffusionConfig, {"diffusion_steps": 10}, "diffusion_steps 10"),
        (DiffusionConfig, {"mask_scale": 0.0}, "mask_scale 0.0: must be at least 0.01"),
        (DiffusionConfig, {"diffusion_steps": 10**9}, "diffusion_steps 1000000000: must be at most 100000"),
        (SamplingConfig, {"members": "2..100000000"}, "members 100000000: must be at most 9999"),
        (SamplingConfig, {"steps": 10**9}, "steps 1000000000: must be at most 100000"),
        (TrainingConfig, {"batch_size": 10**9}, "batch_size 1000000000: must be at most 65536"),
        (TrainingConfig, {"microbatch": 0}, "microbatch 0: must be at least 1"),
        (TrainingConfig, {"steps": [1]}, r"steps \[1\]: must be a whole number"),
        (DiffusionConfig, {"mask_scale": float("nan")}, "mask_scale nan"),
    ],
)
def test_a_bad_option_is_named(section, options, word):
    with pytest.raises(InputError, match=word):
        section(**options)


def test_the_difference_of_two_configurations_names_the_option_and_both_values():
    assert difference(NetworkConfig(), NetworkConfig()) is None
    text = difference(NetworkConfig(image_size=64), NetworkConfig(image_size=128))
    assert text == "`image_size` 128, not 64"
    assert difference(NetworkConfig(channel_mult="1,2"), NetworkConfig()) == '`channel_mult` "", not 1,2'


def test_validation_takes_no_more_steps_than_there_are():
    diffusion = DiffusionConfig(diffusion_steps=30)
    RunConfig(diffusion=diffusion, validation=ValidationConfig(val_steps=31))  # unused
    with pytest.raises(InputError, match=r"val_steps 31.*diffusion_steps 30"):
        RunConfig(diffusion=diffusion, validation=ValidationConfig(val_interval=1, val_steps=31))


@pytest.mark.parametrize("name", ["lr", "weight_decay", "clip_grad"])
def test_an_infinite_number_is_refused(name):
    with pytest.raises(InputError, match=rf"^{name} inf: must be finite$"):
        TrainingConfig(**{name: float("inf")})
    with pytest.raises(InputError, match="-1: must"):
        TrainingConfig(**{name: -1})


def test_every_fusion_rule_can_be_chosen():
    assert get_args(Fusion) == tuple(RULES)


def test_every_timestep_sampler_can_be_chosen():
    assert get_args(TimestepSampler) == tuple(TIMESTEPS)


def test_every_noise_schedule_can_be_chosen():
    for name in get_args(NoiseSchedule):
        assert len(DiffusionConfig(noise_schedule=name).schedule) == 1000


def test_the_anchor_loss_is_that_of_the_version_unless_chosen():
    v2 = NetworkConfig(version="v2")
    assert RunConfig().anchor_loss == "mse"
    assert RunConfig(v2).anchor_loss == "dice_ce"
    assert RunConfig(v2, training=TrainingConfig(anchor_loss="mse")).anchor_loss == "mse"
    for network, options, message in [
        (NetworkConfig(), {"anchor_loss": "dice_ce"}, "anchor_loss dice_ce: belongs to version v2"),
        (NetworkConfig(), {"anchor_alpha": 3}, "anchor_alpha 3: has an effect with anchor_loss dice_ce only"),
        (v2, {"anchor_loss": "mse", "anchor_beta": 1.0}, "anchor_beta 1.0: has an effect with"),
    ]:
        with pytest.raises(InputError, match=message):
            RunConfig(network, training=TrainingConfig(**options))
