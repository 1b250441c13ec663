import numpy as np
import pytest

from medsegdiff.diffusion.process import Diffusion, DiffusionConfig, Output
from medsegdiff.diffusion.samplers import SolverGrid, ddim, ddpm, dpm_solver_pp, dynamic_threshold, final

MU, S = 0.1, 0.2


class Ideal:
    """The best possible denoise function of a normal data distribution, for a schedule of N steps.

    Each pixel is N(mu, s^2); with s = 0 there is one mask only. Between the discrete times, log alpha
    is linear. It answers from the network's time alone, and notes what it was asked.
    """

    def __init__(self, config, mu=MU, s=S):
        self.mu, self.s, self.config = mu, s, config
        self.schedule = Diffusion(config).schedule
        self.times, self.shapes = [], []

    def alpha_and_variance(self, t):
        scale = 1000 / len(self.schedule) if self.config.rescale_timesteps else 1
        log_alpha = np.interp(t / scale, np.arange(len(self.schedule)), 0.5 * np.log(self.schedule.alphas_cumprod))
        return np.exp(log_alpha), -np.expm1(2 * log_alpha)

    def __call__(self, x, t):
        self.times.append(t)
        self.shapes.append(x.shape)
        alpha, variance = self.alpha_and_variance(t)
        x0 = self.mu + alpha * self.s**2 / (alpha**2 * self.s**2 + variance) * (x - alpha * self.mu)
        noise = (x - alpha * x0) / np.sqrt(variance)
        target = {"clean mask": x0, "noise": noise, "v": alpha * noise - np.sqrt(variance) * x0}[self.config.target]
        return Output(np.broadcast_to(np.float32(target), x.shape), None, cal=np.float32(x0))


class Draws:
    """Standard normal draws by number; it notes which were asked for."""

    def __init__(self, shape=(2, 1, 4, 4), seed=0):
        self.shape, self.seed, self.used = shape, seed, []

    def __call__(self, k):
        self.used.append(k)
        return np.random.default_rng((self.seed, k)).standard_normal(self.shape, dtype=np.float32)


def config(steps=100, **options):
    return DiffusionConfig(diffusion_steps=steps, **options)


def mask():
    return (np.random.default_rng(3).random((2, 1, 4, 4)) > 0.5).astype(np.float32)


def probability_flow(x, alpha_from, alpha_to, mu=MU, s=S):
    """Where the exact probability-flow ODE takes `x` (a float64 closed form for normal data)."""
    spread_from, spread_to = (np.sqrt(alpha**2 * s**2 + 1 - alpha**2) for alpha in (alpha_from, alpha_to))
    return mu * alpha_to + spread_to / spread_from * (x - alpha_from * mu)


OPTIONS = [
    {},
    {"predict_xstart": True},
    {"noise_schedule": "cosine"},
    {"rescale_timesteps": True},
    {"sigma_small": True},
    {"predict_v": True},
    {"mask_scale": 0.3, "predict_xstart": True},
    {"mask_scale": 0.3, "predict_v": True},
    {"mask_scale": 2.0},
]


@pytest.mark.parametrize("respacing", ["", "10", "ddim10", "5,3", "1"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["ddpm", "ddim", "ddim-eta"])
def test_the_way_to_a_single_possible_mask_is_exact_at_every_state(name, options, respacing):
    """With one mask alone every step is known: the mask stays, what is left of the noise shrinks, fresh noise comes.

    Song et al. 2021, eq. 12; ancestral sampling is its case of eta 1 but for the fresh noise of a fixed variance.
    """
    sampler = {"ddpm": ddpm, "ddim": ddim, "ddim-eta": lambda *given: ddim(*given, eta=0.7)}[name]
    eta = {"ddpm": 1, "ddim": 0, "ddim-eta": 0.7}[name]
    ideal, draws = Ideal(config(**options), mu=mask(), s=0), Draws()
    diffusion = Diffusion(ideal.config, respacing)
    states = list(sampler(ideal, diffusion, draws))
    kept = diffusion.schedule.alphas_cumprod
    assert len(states) == len(kept)
    rest, rounding = draws(0) - np.sqrt(kept[-1]) * mask(), 0.0
    for state, step in zip(states, reversed(range(len(kept)))):
        kept_next = kept[step - 1] if step else 1.0
        sigma = eta * np.sqrt((1 - kept_next) / (1 - kept[step]) * (1 - kept[step] / kept_next))
        fresh = np.sqrt(1 - kept[step] / kept_next) if name == "ddpm" and not options.get("sigma_small") else sigma
        shrink = np.sqrt((1 - kept_next - sigma**2) / (1 - kept[step]))
        rest = shrink * rest
        if step and fresh:
            rest = rest + fresh * draws(len(kept) - step)
        # Where there is hardly any mask left, the one computed from a noise in float32 magnifies its rounding.
        rounding = shrink * rounding + 2.0**-22 * np.sqrt(kept_next / kept[step])
        bound = max(1e-5, rounding)
        np.testing.assert_allclose(state.x, np.sqrt(kept_next) * mask() + rest, rtol=1e-5, atol=bound)
        np.testing.assert_allclose(state.cal, mask(), atol=1e-6)
        assert state.x.dtype == np.float32
    np.testing.assert_allclose(states[-1].x, mask(), atol=1e-5)
    np.testing.assert_allclose(states[-1].x0, mask(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_solver_keeps_the_noise_of_a_single_mask_at_every_state(options, steps):
    ideal = Ideal(config(**options), mu=mask(), s=0)
    draws = Draws()
    states = list(dpm_solver_pp(ideal, Diffusion(ideal.config), draws, steps))
    kept = ideal.schedule.alphas_cumprod
    noise = (draws(0) - np.sqrt(kept[-1]) * mask()) / np.sqrt(1 - kept[-1])
    log_alpha = np.interp(np.linspace(99, 0, steps + 1), np.arange(100), np.log(kept) / 2)
    assert len(states) == steps
    for state, alpha in zip(states, np.exp(log_alpha[1:])):
        np.testing.assert_allclose(state.x, alpha * mask() + np.sqrt(1 - alpha**2) * noise, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(states[-1].x0, mask(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_stochastic_solver_keeps_the_marginals_of_a_single_mask(options, steps):
    """With one mask alone each step of the SDE is exact: what is not mask shrinks, and fresh noise fills it up."""
    ideal = Ideal(config(**options), mu=mask(), s=0)
    draws = Draws()
    diffusion = Diffusion(ideal.config)
    states = list(dpm_solver_pp(ideal, diffusion, draws, steps, stochastic=True))
    grid = SolverGrid(diffusion, steps)
    rest = draws(0) - grid.alpha[0] * mask()
    for i, state in enumerate(states):
        shrink = grid.sigma[i + 1] / grid.sigma[i] * np.exp(grid.log_snr_half[i] - grid.log_snr_half[i + 1])
        fresh = np.sqrt(grid.sigma[i + 1] ** 2 - (shrink * grid.sigma[i]) ** 2) if i < steps - 1 else 0
        rest = shrink * rest + fresh * draws(i + 1)
        np.testing.assert_allclose(state.x, grid.alpha[i + 1] * mask() + rest, rtol=1e-5, atol=1e-5)


def test_the_stochastic_solver_reproduces_normal_data():
    ideal, count = Ideal(config(1000)), 20000
    diffusion = Diffusion(ideal.config)
    draws = Draws((1, 1, 1, count))
    x = final(dpm_solver_pp(ideal, diffusion, draws, 480, stochastic=True)).x
    assert abs(x.mean() - MU) < 0.01
    assert abs(x.std() / S - 1) < 0.03
    # It is no function of its starting point, as the ODE's result is.
    assert abs(np.corrcoef(x.ravel(), draws(0).ravel())[0, 1]) < 0.1
    ode = final(dpm_solver_pp(ideal, diffusion, draws, 60)).x
    assert np.corrcoef(ode.ravel(), draws(0).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddim_converges_to_the_probability_flow_with_first_order(schedule):
    errors = []
    for steps in (25, 50, 100):
        ideal = Ideal(config(1000, noise_schedule=schedule))
        draws = Draws()
        states = list(ddim(ideal, Diffusion(ideal.config, str(steps)), draws))
        alpha = np.sqrt(ideal.schedule.alphas_cumprod)
        exact = probability_flow(draws(0), alpha[-1], alpha[0])
        errors.append(np.abs(states[-2].x - exact).max())  # the last step leaves the schedule
        np.testing.assert_allclose(states[-1].x, probability_flow(draws(0), alpha[-1], 1), atol=5 / steps)
    assert errors[-1] < 0.03
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert 1.8 < errors[1] / errors[2] < 2.2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_dpm_solver_converges_to_the_probability_flow_with_second_order(schedule):
    errors = []
    for steps in (160, 320, 640):
        ideal = Ideal(config(1000, noise_schedule=schedule))
        draws = Draws()
        state = final(dpm_solver_pp(ideal, Diffusion(ideal.config), draws, steps))
        alpha = np.sqrt(ideal.schedule.alphas_cumprod)
        errors.append(np.abs(state.x - probability_flow(draws(0), alpha[-1], alpha[0])).max())
    assert errors[-1] < 1e-3
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


def normal_sample(count, respacing, learned):
    """Ancestral samples of N(MU, S^2), and the standard deviation that the last step, a mean, leaves them."""
    ideal = Ideal(config(1000))
    diffusion = Diffusion(ideal.config, respacing)
    schedule = diffusion.schedule

    def denoise(x, t):
        output = ideal(x, t)
        step = int(np.flatnonzero(schedule.timesteps == t)[0])
        alpha, variance = ideal.alpha_and_variance(t)
        # The best variance is the posterior's and, through its mean, that of x_0 given x_t.
        uncertainty = S**2 * variance / (alpha**2 * S**2 + variance)
        best = schedule.posterior_variance[step] + schedule.posterior_mean_coef1[step] ** 2 * uncertainty
        low, high = schedule.posterior_log_variance_clipped[step], np.log(schedule.betas[step])
        v = 2 * (np.log(best) - low) / (high - low) - 1 if high > low else 0.0
        return Output(output.target, np.full(x.shape, v, np.float32) if learned else None)

    x = final(ddpm(denoise, diffusion, Draws((count, 1, 1, 1)))).x
    alpha, variance = ideal.alpha_and_variance(schedule.timesteps[0])
    return x, S * alpha * S / np.sqrt(alpha**2 * S**2 + variance)


@pytest.mark.parametrize("respacing", ["10", "ddim25", "200"])
def test_ddpm_with_the_best_variance_reproduces_normal_data_in_any_number_of_steps(respacing):
    count = 40000
    x, spread = normal_sample(count, respacing, learned=True)
    assert abs(x.mean() - MU) < 5 * S / np.sqrt(count)
    assert abs(x.std() / spread - 1) < 5 / np.sqrt(2 * count)
    assert abs(((x - x.mean()) ** 3).mean() / spread**3) < 5 * np.sqrt(6 / count)


def test_ddpm_with_the_fixed_variance_reproduces_normal_data_in_many_steps():
    count = 10000
    x, spread = normal_sample(count, "250", learned=False)
    assert abs(x.mean() - MU) < 5 * S / np.sqrt(count)
    assert abs(x.std() / spread - 1) < 0.1


def test_implicit_sampling_with_eta_1_is_ancestral_sampling_with_the_small_variance():
    options = config(1000, sigma_small=True)
    implicit, ancestral = (
        list(sampler(Ideal(options), Diffusion(options, "20"), Draws()))
        for sampler in (lambda *given: ddim(*given, eta=1.0), ddpm)
    )
    for one, other in zip(implicit, ancestral):
        np.testing.assert_allclose(one.x, other.x, atol=2e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 14])
def test_the_solver_is_algorithm_2_of_its_paper(steps):
    """DPM-Solver++(2M) in the paper's own form, float64, with a denoiser that is not linear."""
    options = config(100, predict_xstart=True)
    draws = Draws()
    result = final(
        dpm_solver_pp(lambda x, t: Output(np.tanh(x * (1 + t / 50)), None), Diffusion(options), draws, steps)
    )
    kept = Diffusion(options).schedule.alphas_cumprod
    times = 1 + (1 / 100 - 1) * np.arange(steps + 1) / steps
    alpha = np.exp(np.interp(times * 100 - 1, np.arange(100), np.log(kept) / 2))
    sigma = np.sqrt(1 - alpha**2)
    snr = np.log(alpha / sigma)
    x, previous = np.float64(draws(0)), None
    for i in range(steps):
        x0 = np.tanh(x * (1 + (times[i] * 100 - 1) / 50))
        h = snr[i + 1] - snr[i]
        combined = x0
        if i > 0 and (steps >= 10 or i < steps - 1):
            r = (snr[i] - snr[i - 1]) / h
            combined = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * (np.exp(-h) - 1) * combined
        previous = x0
    np.testing.assert_allclose(result.x, x, atol=3e-5)


def test_solver_grid_agrees_with_the_discrete_steps():
    diffusion = Diffusion(config(100))
    grid = SolverGrid(diffusion, 99)  # visits every discrete step
    np.testing.assert_allclose(grid.times, np.arange(100, 0, -1) / 100, rtol=1e-12)
    kept = diffusion.schedule.alphas_cumprod[::-1]
    np.testing.assert_allclose(grid.alpha, np.sqrt(kept), rtol=1e-10)
    np.testing.assert_allclose(grid.sigma, np.sqrt(1 - kept), rtol=1e-9)
    np.testing.assert_allclose(grid.log_snr_half, 0.5 * np.log(kept / (1 - kept)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_one_evaluation_a_step_at_the_original_timesteps(sampler):
    ideal, draws = Ideal(config()), Draws()
    states = list(sampler(ideal, Diffusion(ideal.config, "4,3"), draws))
    assert ideal.times == [99, 74, 50, 49, 33, 16, 0]
    assert len(states) == 7
    assert ideal.shapes == [(2, 1, 4, 4)] * 7


def test_rescaled_times_run_to_1000():
    ideal = Ideal(config(rescale_timesteps=True))
    list(ddpm(ideal, Diffusion(ideal.config, "ddim4"), Draws()))
    assert ideal.times == [750, 500, 250, 0]


@pytest.mark.parametrize(
    ("options", "time_scale", "first"), [({}, None, 99), ({"rescale_timesteps": True}, None, 990), ({}, 1000, 990)]
)
def test_the_solver_asks_at_uniform_times(options, time_scale, first):
    ideal = Ideal(config(**options))
    states = list(dpm_solver_pp(ideal, Diffusion(ideal.config), Draws(), 9, time_scale=time_scale))
    assert len(states) == 9
    np.testing.assert_allclose(ideal.times, first * np.arange(9, 0, -1) / 9, rtol=1e-12)


@pytest.mark.parametrize(
    ("sampler", "used"),
    [
        (ddpm, [0, 1, 2, 3, 4]),
        (ddim, [0]),
        (lambda *given: ddim(*given, eta=0.5), [0, 1, 2, 3, 4]),
        (lambda *given: dpm_solver_pp(*given, steps=5), [0]),
        (lambda *given: dpm_solver_pp(*given, steps=5, stochastic=True), [0, 1, 2, 3, 4]),
    ],
    ids=["ddpm", "ddim", "ddim-eta", "dpm-solver", "sde-dpm-solver"],
)
def test_draws_are_asked_for_in_order_and_none_at_the_last_step(sampler, used):
    draws, ideal = Draws(), Ideal(config())
    list(sampler(ideal, Diffusion(ideal.config, "5"), draws))
    assert draws.used == used


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_the_clean_mask_is_clipped(sampler):
    options = config(predict_xstart=True)
    states = list(sampler(lambda x, _: Output(np.full_like(x, 3), None), Diffusion(options, "10"), Draws()))
    assert all((state.x0 == 1).all() for state in states)
    np.testing.assert_allclose(states[-1].x, 1, atol=1e-5)


@pytest.mark.parametrize("sampler", [ddpm, ddim, lambda *given: dpm_solver_pp(*given, steps=6)])
def test_a_sample_does_not_depend_on_the_others_in_its_batch(sampler):
    ideal = Ideal(config(), s=2.0)  # wide enough for clipping and thresholds to matter
    diffusion = Diffusion(ideal.config, "6")
    together = final(sampler(ideal, diffusion, Draws())).x
    for row in range(2):
        draws = Draws()
        alone = final(sampler(ideal, diffusion, lambda k, draws=draws, row=row: draws(k)[row : row + 1])).x
        np.testing.assert_array_equal(alone[0], together[row])


def test_dynamic_threshold_is_the_quantile_of_each_sample():
    x = np.random.default_rng(0).standard_normal((2, 1, 20, 20)).astype(np.float32) * np.float32([[[[5]]], [[[0.1]]]])
    result = dynamic_threshold(x, 0.9)
    sizes = np.sort(np.abs(x[0]).ravel())
    position = 0.9 * 399
    low = int(position)
    bound = sizes[low] + (position - low) * (sizes[low + 1] - sizes[low])
    np.testing.assert_allclose(result[0], np.clip(x[0] / bound, -1, 1), rtol=1e-5)
    np.testing.assert_array_equal(result[1], x[1])


def test_the_solver_without_a_threshold_takes_large_values_as_they_are():
    options = config(predict_xstart=True)

    def denoise(x, _):
        return Output(np.full_like(x, 3), None)

    for threshold, expected in [(None, 3), (0.995, 1), (0, 1)]:
        states = list(dpm_solver_pp(denoise, Diffusion(options), Draws(), 5, threshold=threshold))
        assert all((state.x0 == expected).all() for state in states)


def test_the_callback_sees_every_state():
    ideal, seen = Ideal(config()), []
    last = final(ddim(ideal, Diffusion(ideal.config, "5"), Draws()), seen.append)
    assert len(seen) == 5
    assert seen[-1] is last


def test_no_steps_are_no_result():
    with pytest.raises(ValueError, match="without steps"):
        final(iter(()))
