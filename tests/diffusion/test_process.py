import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.diffusion.process import Diffusion, DiffusionConfig, Output

STEPS = [0, 1, 37, 99]


def diffusion(respacing="", **options):
    return Diffusion(DiffusionConfig(**{"diffusion_steps": 100, **options}), respacing)


def arrays(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 2, 1, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("step", STEPS)
def test_the_noise_and_the_clean_mask_determine_each_other(step):
    process = diffusion()
    x0, noise = arrays(2)
    kept = process.schedule.alphas_cumprod[step]
    x_t = np.float32(np.sqrt(kept) * x0 + np.sqrt(1 - kept) * noise)
    amplified = 1e-6 / np.sqrt(kept)
    np.testing.assert_allclose(process.to_x0(x_t, step, Output(noise, None)), x0, atol=10 * amplified)
    np.testing.assert_allclose(process.to_noise(x_t, step, x0), noise, atol=10 * 1e-6 / np.sqrt(1 - kept))
    assert process.to_x0(x_t, step, Output(noise, None)).dtype == np.float32
    assert process.to_noise(x_t, step, x0).dtype == np.float32


@pytest.mark.parametrize("step", STEPS)
def test_a_network_trained_on_v_gives_the_clean_mask_without_dividing_by_little(step):
    process = diffusion(predict_v=True)
    x0, noise = arrays(2)
    kept = process.schedule.alphas_cumprod[step]
    x_t = np.float32(np.sqrt(kept) * x0 + np.sqrt(1 - kept) * noise)
    v = np.float32(np.sqrt(kept) * noise - np.sqrt(1 - kept) * x0)
    found = process.to_x0(x_t, step, Output(v, None))
    np.testing.assert_allclose(found, x0, atol=1e-6)
    assert found.dtype == np.float32


def test_a_network_predicts_one_thing():
    assert [DiffusionConfig(**{name: True}).target for name in ("predict_xstart", "predict_v", "use_kl")] == [
        "clean mask",
        "v",
        "noise",
    ]
    with pytest.raises(InputError, match="predict_v true: contradicts predict_xstart true"):
        DiffusionConfig(predict_xstart=True, predict_v=True)


def test_a_network_trained_on_the_clean_mask_is_taken_at_its_word():
    x_t, target = arrays(2)
    assert diffusion(predict_xstart=True).to_x0(x_t, 50, Output(target, None)) is target


@pytest.mark.parametrize("spec", ["", "ddim10"])
@pytest.mark.parametrize("step", [1, 4, 9])
def test_the_posterior_follows_from_bayes_rule(step, spec):
    """Product of q(x_{t-1} | x_0) and q(x_t | x_{t-1}), both normal in x_{t-1}."""
    process = diffusion(respacing=spec)
    x0, x_t = arrays(2)
    schedule = process.schedule
    before = np.prod(1 - schedule.betas[:step])
    beta = schedule.betas[step]
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (np.sqrt(before) * x0 / (1 - before) + np.sqrt(1 - beta) * x_t / beta) / precision
    np.testing.assert_allclose(process.posterior_mean(x_t, step, x0), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(schedule.posterior_variance[step], 1 / precision, rtol=1e-9)


def test_the_posterior_of_the_last_step_is_the_clean_mask():
    x0, x_t = arrays(2)
    np.testing.assert_allclose(diffusion().posterior_mean(x_t, 0, x0), x0, atol=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_a_learned_variance_lies_between_the_posteriors_and_beta(step):
    process = diffusion()
    schedule = process.schedule
    low = np.log(schedule.posterior_variance[max(step, 1)])
    high = np.log(schedule.betas[step])
    shape = (2, 1, 4, 5)
    for v, expected in [(-1, low), (1, high), (0, (low + high) / 2), (0.5, low / 4 + high * 3 / 4)]:
        value = process.log_variance(step, Output(None, np.full(shape, v, np.float32)))
        np.testing.assert_allclose(value, np.full(shape, expected), rtol=1e-6)
    assert low <= high


def test_a_learned_variance_stays_in_its_range_unless_asked_otherwise():
    beyond, edge = (Output(None, np.full((1, 1, 2, 2), v, np.float32)) for v in (9, 1))
    kept, free = diffusion("10"), Diffusion(DiffusionConfig(diffusion_steps=100), "10", clip_variance=False)
    np.testing.assert_array_equal(kept.log_variance(5, beyond), kept.log_variance(5, edge))
    np.testing.assert_array_equal(free.log_variance(5, edge), kept.log_variance(5, edge))
    low, high = free.schedule.posterior_log_variance_clipped[5], np.log(free.schedule.betas[5])
    np.testing.assert_allclose(free.log_variance(5, beyond), 5 * high - 4 * low, atol=1e-5)


def test_fixed_variances():
    schedule = diffusion().schedule
    large = np.log([schedule.posterior_variance[1], *schedule.betas[1:]])
    small = np.log([schedule.posterior_variance[1], *schedule.posterior_variance[1:]])
    for step in STEPS:
        output = Output(None, None)
        assert diffusion().log_variance(step, output) == pytest.approx(large[step], rel=1e-6)
        assert diffusion(sigma_small=True).log_variance(step, output) == pytest.approx(small[step], rel=1e-6)


def test_the_network_is_asked_at_the_timesteps_that_it_was_trained_with():
    assert [diffusion().network_time(step) for step in (0, 99)] == [0, 99]
    respaced = diffusion(respacing="ddim10")
    assert [respaced.network_time(step) for step in range(10)] == list(range(0, 100, 10))
    scaled = diffusion(respacing="ddim10", rescale_timesteps=True)
    assert [scaled.network_time(step) for step in range(10)] == list(range(0, 1000, 100))


def test_respacing_shortens_the_schedule():
    assert len(diffusion()) == 100
    assert len(diffusion(respacing="ddim10")) == 10
    with pytest.raises(InputError):
        diffusion(respacing="ddim30")


@pytest.mark.parametrize("options", [{"diffusion_steps": 10}, {"noise_schedule": "none"}])
def test_impossible_options_are_refused_at_once(options):
    with pytest.raises(InputError):
        DiffusionConfig(**{"diffusion_steps": 100, **options})
