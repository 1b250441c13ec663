import dataclasses

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.engine.config import (
    DataConfig,
    RunConfig,
    SamplingConfig,
    TrainingConfig,
    ValidationConfig,
    difference,
)
from medsegdiff.nn.config import NetworkConfig


def test_no_option_name_occurs_in_two_sections_so_the_flat_form_loses_nothing():
    sections = (NetworkConfig, DiffusionConfig, DataConfig, TrainingConfig, ValidationConfig)
    names = [f.name for section in sections for f in dataclasses.fields(section)]
    assert len(names) == len(set(names))
    config = RunConfig(NetworkConfig(image_size=64), DiffusionConfig(diffusion_steps=50), DataConfig(augment=True))
    assert RunConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("section", "options", "word"),
    [
        (TrainingConfig, {"steps": 0}, "--steps 0"),
        (SamplingConfig, {"sampler": "euler"}, "--sampler euler: must be one of ddpm"),
        (SamplingConfig, {"fusion": "median"}, "--fusion median: must be one of mean"),
        (SamplingConfig, {"control": "noise"}, "--control noise: must be one of shuffle-noise, no-noise"),
        (SamplingConfig, {"threshold": 1.5}, "--threshold 1.5"),
        (SamplingConfig, {"until": 0.0}, "--until 0.0"),
        (SamplingConfig, {"steps": -1}, "--steps -1"),
        (SamplingConfig, {"sampler": "sde-dpm++", "timestep_respacing": "5"}, "--timestep-respacing"),
        (TrainingConfig, {"lr": -1.0}, "--lr -1.0"),
        (TrainingConfig, {"lr": float("nan")}, "--lr nan"),
        (TrainingConfig, {"ema_rate": "0.9,x"}, "--ema-rate"),
        (TrainingConfig, {"ema_rate": "1.0"}, "--ema-rate"),
        (TrainingConfig, {"clip_grad": -1.0}, "--clip-grad -1.0"),
        (TrainingConfig, {"warmup_steps": -1}, "--warmup-steps -1"),
        (TrainingConfig, {"lr_schedule": "step"}, "--lr-schedule step: must be one of constant, linear, cosine"),
        (TrainingConfig, {"lr_schedule": "constant", "lr_anneal_steps": 5}, "contradicts --lr-schedule constant"),
        (TrainingConfig, {"lr_anneal_steps": 5, "warmup_steps": 5}, "--warmup-steps 5: must be less than the 5"),
        (TrainingConfig, {"decay": "weights"}, "--decay weights"),
        (ValidationConfig, {"val_interval": -1}, "--val-interval -1"),
        (ValidationConfig, {"val_fraction": 1.0}, "--val-fraction 1.0"),
        (ValidationConfig, {"val_steps": 1}, "--val-steps 1: must be at least 2"),
        (ValidationConfig, {"patience": 3}, "--patience 3: counts validations; give --val-interval too"),
        (DataConfig, {"data_name": "brats"}, "--data-name brats"),
        (DataConfig, {"mask_resize": "cubic"}, "--mask-resize cubic"),
        (DataConfig, {"augment": True, "augment_strength": 1.5}, "--augment-strength 1.5: must be from 0 to 1"),
        (DataConfig, {"augment": True, "augment_hair": -0.1}, "--augment-hair -0.1: must be from 0 to 1"),
        (DataConfig, {"augment_strength": 0.5}, "--augment-strength 0.5: has a meaning with --augment only"),
        (TrainingConfig, {"dice_weight": -1.0}, "--dice-weight -1.0"),
        (SamplingConfig, {"sampler": "euler"}, "--sampler euler"),
        (SamplingConfig, {"members": 0}, "--members 0"),
        (SamplingConfig, {"members": 3, "tta": True}, "--tta: needs a member for each of the 4 flips"),
        (SamplingConfig, {"members": "3..25", "tta": True}, "--members is 3..25; give at least 4"),
        (SamplingConfig, {"eta": 2.0}, "--eta 2.0"),
        (DiffusionConfig, {"diffusion_steps": 10}, "--diffusion-steps 10"),
        (DiffusionConfig, {"mask_scale": 0.0}, "--mask-scale 0.0: must be from 0.01 to 100"),
        (DiffusionConfig, {"mask_scale": float("nan")}, "--mask-scale nan"),
    ],
)
def test_a_bad_option_is_named(section, options, word):
    with pytest.raises(InputError, match=word):
        section(**options)


def test_several_averages_may_be_asked_for():
    assert TrainingConfig(ema_rate="0.9999, 0.99").ema_rates == ["0.9999", "0.99"]
    assert TrainingConfig(ema_rate="").ema_rates == []


@pytest.mark.parametrize(
    ("options", "steps", "spacing"),
    [
        ({"steps": 25}, 25, "25"),
        ({"steps": 0}, 100, ""),
        ({"steps": 100}, 100, ""),
        ({"steps": 7, "timestep_respacing": "ddim10"}, 10, "ddim10"),
        ({"timestep_respacing": "10,15,20"}, 45, "10,15,20"),
        ({"sampler": "dpm++", "steps": 150}, 150, ""),
        ({"sampler": "dpm++", "steps": 0}, 100, ""),
    ],
)
def test_the_steps_that_are_done_are_resolved_and_spaced(options, steps, spacing):
    diffusion, sampling = DiffusionConfig(diffusion_steps=100), SamplingConfig(**options)
    assert sampling.resolved(diffusion).steps == steps
    assert sampling.resolved(diffusion).resolved(diffusion) == sampling.resolved(diffusion)
    assert sampling.spacing(diffusion) == sampling.resolved(diffusion).spacing(diffusion) == spacing


@pytest.mark.parametrize(
    ("options", "named"), [({"steps": 31}, r"--steps 31.*30 steps"), ({"timestep_respacing": "31"}, "31 steps cannot")]
)
def test_steps_that_there_are_not_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        SamplingConfig(**options).resolved(DiffusionConfig(diffusion_steps=30))


def test_the_difference_of_two_configurations_names_the_option_and_both_values():
    assert difference(NetworkConfig(), NetworkConfig()) is None
    text = difference(NetworkConfig(image_size=64), NetworkConfig(image_size=128))
    assert text == "--image-size 128, not 64"


def test_validation_takes_no_more_steps_than_there_are():
    diffusion = DiffusionConfig(diffusion_steps=30)
    RunConfig(diffusion=diffusion, validation=ValidationConfig(val_steps=31))  # unused
    with pytest.raises(InputError, match=r"--val-steps 31.*--diffusion-steps 30"):
        RunConfig(diffusion=diffusion, validation=ValidationConfig(val_interval=1, val_steps=31))


@pytest.mark.parametrize(("predict_xstart", "steps"), [(True, 3), (False, 25)])
def test_the_default_number_of_steps_depends_on_what_the_network_predicts(predict_xstart, steps):
    diffusion = DiffusionConfig(diffusion_steps=100, predict_xstart=predict_xstart)
    assert SamplingConfig().resolved(diffusion).steps == steps
    assert SamplingConfig(steps=7).resolved(diffusion).steps == 7


@pytest.mark.parametrize(("members", "ends"), [(1, (1, 1)), ("4", (4, 4)), ("3..25", (3, 25)), ("2..2", (2, 2))])
def test_members_are_a_number_or_a_range(members, ends):
    assert SamplingConfig(members=members).member_range == ends


@pytest.mark.parametrize("members", [0, "0", "-1", "a", "3..", "..3", "5..3", "1..3", "3...5", ""])
def test_other_members_are_refused(members):
    with pytest.raises(InputError, match="--members"):
        SamplingConfig(members=members)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "clip_grad"])
def test_an_infinite_number_is_refused(name):
    with pytest.raises(InputError, match=rf"^--{name.replace('_', '-')} inf: must be finite$"):
        TrainingConfig(**{name: float("inf")})
    with pytest.raises(InputError, match="-1: must not be negative"):
        TrainingConfig(**{name: -1})
