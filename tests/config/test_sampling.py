import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion.process import DiffusionConfig


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
    ("options", "named"), [({"steps": 31}, r"steps 31.*30 steps"), ({"timestep_respacing": "31"}, "31 steps cannot")]
)
def test_steps_that_there_are_not_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        SamplingConfig(**options).resolved(DiffusionConfig(diffusion_steps=30))


@pytest.mark.parametrize(("predicts", "steps"), [({"predict_xstart": True}, 3), ({"predict_v": True}, 3), ({}, 25)])
def test_the_default_number_of_steps_depends_on_what_the_network_predicts(predicts, steps):
    diffusion = DiffusionConfig(diffusion_steps=100, **predicts)
    assert SamplingConfig().resolved(diffusion).steps == steps
    assert SamplingConfig(steps=7).resolved(diffusion).steps == 7


@pytest.mark.parametrize(("members", "ends"), [(1, (1, 1)), ("4", (4, 4)), ("3..25", (3, 25)), ("2..2", (2, 2))])
def test_members_are_a_number_or_a_range(members, ends):
    assert SamplingConfig(members=members).member_range == ends


@pytest.mark.parametrize("members", [0, "0", "-1", "a", "3..", "..3", "5..3", "1..3", "3...5", ""])
def test_other_members_are_refused(members):
    with pytest.raises(InputError, match="members"):
        SamplingConfig(members=members)
