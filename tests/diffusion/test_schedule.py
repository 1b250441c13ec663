from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.diffusion.schedule import make_schedule, respace

CASE = np.load(Path(__file__).parents[1] / "parity" / "cases" / "schedules.npz")
QUANTITIES = [name for name in CASE.files if name.count(":") == 1]
RESPACINGS = [name for name in CASE.files if name.startswith("respacing:")]


@pytest.mark.parametrize("entry", QUANTITIES)
def test_quantities_are_those_of_the_original(entry):
    which, quantity = entry.split(":")
    name, steps = which.split("-")
    schedule = make_schedule(name, int(steps))
    assert len(schedule) == int(steps)
    np.testing.assert_allclose(getattr(schedule, quantity), CASE[entry], rtol=1e-12, atol=0)


@pytest.mark.parametrize("entry", RESPACINGS)
def test_respacing_keeps_the_timesteps_of_the_original(entry):
    _, steps, spec = entry.split(":")
    np.testing.assert_array_equal(respace(int(steps), spec), CASE[entry])


def test_the_case_file_has_both_kinds_of_entry():
    assert len(QUANTITIES) == 24
    assert len(RESPACINGS) == 5


def test_a_respaced_schedule_has_the_signal_of_the_timesteps_that_it_keeps():
    full = make_schedule("cosine", 100)
    schedule = full.respaced("10,5")
    assert len(schedule) == 15
    np.testing.assert_array_equal(schedule.timesteps[[0, 9, 10, 14]], [0, 49, 50, 99])
    np.testing.assert_allclose(schedule.alphas_cumprod, full.alphas_cumprod[schedule.timesteps], rtol=1e-12)
    np.testing.assert_allclose(np.cumprod(1 - schedule.betas), full.alphas_cumprod[schedule.timesteps], rtol=1e-12)
    assert full.respaced("") is full


def test_respacing_twice_remembers_the_first_timesteps():
    schedule = make_schedule("linear", 100).respaced("ddim20").respaced("ddim5")
    np.testing.assert_array_equal(schedule.timesteps, [0, 20, 40, 60, 80])


def test_sections_share_the_remainder_and_round_half_to_even():
    np.testing.assert_array_equal(respace(11, "2,2,2"), [0, 3, 4, 7, 8, 10])
    np.testing.assert_array_equal(respace(6, "3"), [0, 2, 5])  # 2.5 rounds to 2
    np.testing.assert_array_equal(respace(8, "3"), [0, 4, 7])  # 3.5 rounds to 4
    np.testing.assert_array_equal(respace(10, "1"), [0])


def test_ddim_takes_the_first_whole_stride():
    np.testing.assert_array_equal(respace(100, "ddim34"), np.arange(0, 100, 3))


@pytest.mark.parametrize(
    ("steps", "spec", "message"),
    [
        (100, "ddim30", "no whole stride gives exactly 30 of 100"),
        (100, "ddim101", "no whole stride"),
        (100, "ddim0", "no whole stride"),
        (100, "ddim", "must look like"),
        (100, "0", "0 steps cannot be taken from a section of 100"),
        (100, "-5", "cannot be taken"),
        (100, "abc", "must look like"),
        (100, "10,", "must look like"),
        (100, "2.5", "must look like"),
        (100, "101", "101 steps cannot be taken from a section of 100"),
        (100, "10,51", "51 steps cannot be taken from a section of 50"),
    ],
)
def test_a_respacing_that_does_not_fit_is_refused_by_name(steps, spec, message):
    with pytest.raises(InputError, match=message) as caught:
        make_schedule("cosine", steps).respaced(spec)
    assert f'timestep_respacing "{spec}"' in str(caught.value)


@pytest.mark.parametrize("steps", [1, 10, 20])
def test_linear_needs_more_than_20_steps(steps):
    with pytest.raises(InputError, match=f"diffusion_steps {steps}: the linear schedule needs more than 20"):
        make_schedule("linear", steps)
    assert (make_schedule("cosine", steps).betas < 1).all()


def test_21_linear_steps_have_betas_below_1():
    assert make_schedule("linear", 21).betas.max() < 1


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("factor", [0.01, 0.3, 2.0, 100.0])
def test_a_scaled_mask_with_noise_has_that_signal_at_variance_one(name, factor):
    plain = make_schedule(name, 100)
    scaled = plain.scaled(factor)
    kept = plain.alphas_cumprod
    norm = np.sqrt(factor**2 * kept + 1 - kept)
    np.testing.assert_allclose(np.sqrt(scaled.alphas_cumprod), factor * np.sqrt(kept) / norm, rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(1 - scaled.alphas_cumprod), np.sqrt(1 - kept) / norm, rtol=1e-9)
    assert ((scaled.betas > 0) & (scaled.betas < 1)).all()
    np.testing.assert_array_equal(scaled.timesteps, plain.timesteps)


def test_a_mask_scaled_by_one_is_the_same_schedule():
    plain = make_schedule("linear", 100)
    assert plain.scaled(1.0) is plain
