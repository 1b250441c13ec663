from types import SimpleNamespace

import numpy as np
import pytest

from medsegdiff.diffusion.process import Diffusion, DiffusionConfig
from medsegdiff.runtime.backend import jt
from medsegdiff.training.losses import DiceCe, TrainingLoss

T = np.array([0, 0, 1, 50, 99])
SHAPE = (5, 1, 6, 4)


def cdf(x):
    return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def clean_mask(options, target, x_t, kept):
    """The clean mask that a network's output amounts to."""
    if options.get("predict_v"):
        return np.sqrt(kept) * x_t - np.sqrt(1 - kept) * target
    return target if options.get("predict_xstart") else (x_t - np.sqrt(1 - kept) * target) / np.sqrt(kept)


def wanted(options, mask, noise, kept):
    """What a network should predict."""
    if options.get("predict_v"):
        return np.sqrt(kept) * noise - np.sqrt(1 - kept) * mask
    return mask if options.get("predict_xstart") else noise


def reference(options, target, variance, cal, mask, noise, x_t, t):
    """The losses of one sample at timestep `t`, in float64, as the specification writes them."""
    steps = 100
    betas = np.linspace(1e-4 * 1000 / steps, 0.02 * 1000 / steps, steps)
    kept = np.array([np.prod(1 - betas[: i + 1]) for i in range(steps)])
    before = np.concatenate([[1], kept[:-1]])
    posterior = betas * (1 - before) / (1 - kept)
    low = np.log(posterior[max(t, 1)])

    x0 = clean_mask(options, target, x_t, kept[t])

    def posterior_mean(x0):
        of_x0 = np.sqrt(before[t]) * betas[t] / (1 - kept[t])
        return of_x0 * x0 + np.sqrt(1 - betas[t]) * (1 - before[t]) / (1 - kept[t]) * x_t

    if variance is None:
        log_variance = low if options.get("sigma_small") or t == 0 else np.log(betas[t])
    else:
        log_variance = (variance + 1) / 2 * np.log(betas[t]) + (1 - variance) / 2 * low
    log_variance = np.broadcast_to(log_variance, mask.shape)
    mean, truth = posterior_mean(x0), posterior_mean(mask)
    if t == 0:
        scale = np.exp(log_variance / 2)
        above, below = cdf((mask - mean + 1 / 255) / scale), cdf((mask - mean - 1 / 255) / scale)
        share = np.where(mask < -0.999, above, np.where(mask > 0.999, 1 - below, above - below))
        bound = -np.log(np.maximum(share, 1e-12))
    else:
        ratio = np.exp(low - log_variance)
        bound = 0.5 * (ratio - 1 - np.log(ratio) + (truth - mean) ** 2 / np.exp(log_variance))
    bound = bound.mean() / np.log(2)
    cal_loss = ((mask - cal) ** 2).mean()
    if options.get("use_kl"):
        return {"diff": bound, "vb": bound, "diffusion": bound * steps, "cal": cal_loss}
    diff = ((wanted(options, mask, noise, kept[t]) - target) ** 2).mean()
    if variance is None:
        return {"diff": diff, "vb": None, "diffusion": diff, "cal": cal_loss}
    bound = bound * steps / 1000 if options.get("rescale_learned_sigmas") else bound
    return {"diff": diff, "vb": bound, "diffusion": diff + bound, "cal": cal_loss}


def case(learned=True, dice_weight=0.0, **options):
    rng = np.random.default_rng(0)
    loss = TrainingLoss(Diffusion(DiffusionConfig(diffusion_steps=100, **options)), dice_weight)
    mask = rng.integers(-1, 2, SHAPE).astype(np.float32)  # -1 and 1 are the open ends of the likelihood
    noise = rng.standard_normal(SHAPE, dtype=np.float32)
    kept = loss.diffusion.schedule.alphas_cumprod[T].reshape(-1, 1, 1, 1)
    truth = wanted(options, mask, noise, kept).astype(np.float32)
    error = 0.02 if options.get("predict_xstart") else 0.3
    given = {
        "target": truth + np.float32(error) * rng.standard_normal(SHAPE, dtype=np.float32),
        "variance": rng.uniform(-1, 1, SHAPE).astype(np.float32) if learned else None,
        "cal": rng.random(SHAPE, dtype=np.float32),
        "mask": mask,
        "noise": noise,
        "x_t": loss.noisy(mask, noise, T),
    }
    return loss, given


def compute(loss, given):
    variables = {name: None if array is None else jt.array(array) for name, array in given.items()}
    prediction = SimpleNamespace(**{name: variables[name] for name in ("target", "variance", "cal")})
    losses = loss(prediction, variables["mask"], variables["noise"], variables["x_t"], T)
    return losses, variables


def row(given, index):
    return {name: None if array is None else np.float64(array[index]) for name, array in given.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescale_learned_sigmas": True},
        {"predict_xstart": True},
        {"predict_v": True},
        {"use_kl": True},
        {"use_kl": True, "predict_xstart": True},
        {"learned": False},
        {"learned": False, "use_kl": True},
        {"learned": False, "use_kl": True, "sigma_small": True},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_losses_are_those_of_the_formulas(options):
    loss, given = case(**options)
    losses, _ = compute(loss, given)
    for index, t in enumerate(T):
        expected = reference(options, **row(given, index), t=t)
        for name, value in expected.items():
            actual = getattr(losses, name)
            if value is None:
                assert actual is None
            else:
                assert actual.shape == [len(T)]
                np.testing.assert_allclose(
                    actual.numpy()[index], value, rtol=1e-3, atol=1e-6, err_msg=f"{name} at t = {t}"
                )


def test_means_over_many_pixels_are_exact_to_float32():
    rng = np.random.default_rng(0)
    mask, noise, target, cal, x_t = (1 + rng.random((2, 1, 256, 256), dtype=np.float32) for _ in range(5))
    prediction = SimpleNamespace(target=jt.array(target), variance=None, cal=jt.array(-cal))
    loss = TrainingLoss(Diffusion(DiffusionConfig(diffusion_steps=100)))
    losses = loss(prediction, jt.array(mask), jt.array(noise), jt.array(x_t), np.array([3, 4]))
    for found, error in ((losses.diff, noise - target), (losses.cal, mask + cal)):
        np.testing.assert_allclose(found.numpy(), (np.float64(error) ** 2).mean((1, 2, 3)), rtol=3e-7)


def test_noisy_masks_have_the_signal_and_noise_of_their_timestep():
    _, given = case()
    betas = np.linspace(1e-3, 0.2, 100)
    for index, t in enumerate(T):
        kept = np.prod(1 - betas[: t + 1])
        expected = np.sqrt(kept) * given["mask"][index] + np.sqrt(1 - kept) * given["noise"][index]
        np.testing.assert_allclose(given["x_t"][index], expected, atol=1e-6)
    assert given["x_t"].dtype == np.float32


def test_the_network_sees_rescaled_times_on_demand():
    np.testing.assert_array_equal(case()[0].network_time(T), np.float32(T))
    np.testing.assert_array_equal(case(rescale_timesteps=True)[0].network_time(T), np.float32(T * 10))


def test_the_bound_trains_the_variance_and_never_the_mean():
    loss, given = case()
    losses, variables = compute(loss, given)
    of_bound = jt.grad(losses.vb.sum(), [variables["target"], variables["variance"]])
    of_both = jt.grad(losses.diffusion.sum(), [variables["target"], variables["variance"]])
    np.testing.assert_array_equal(of_bound[0].numpy(), 0)
    squared_error = 2 * (given["target"] - given["noise"]) / given["noise"][0].size
    np.testing.assert_allclose(of_both[0].numpy(), squared_error, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(of_both[1].numpy(), of_bound[1].numpy(), rtol=1e-4, atol=1e-7)

    step = 1e-5
    for index, t in enumerate(T):
        sample = row(given, index)
        for pixel in [(0, 0, 0), (0, 3, 2), (0, 5, 3)]:
            values = []
            for sign in (1, -1):
                variance = sample["variance"].copy()
                variance[pixel] += sign * step
                values.append(reference({}, **{**sample, "variance": variance}, t=t)["vb"])
            slope = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(of_bound[1].numpy()[(index, *pixel)], slope, rtol=5e-3, atol=1e-5)


def test_with_use_kl_the_bound_trains_the_mean_too():
    loss, given = case(use_kl=True)
    losses, variables = compute(loss, given)
    gradient = jt.grad(losses.diffusion.sum(), variables["target"]).numpy()
    step, pixel = 1e-5, (0, 3, 2)
    for index, t in enumerate(T):
        values = []
        for sign in (1, -1):
            sample = row(given, index)
            sample["target"][pixel] += sign * step
            values.append(reference({"use_kl": True}, **sample, t=t)["diffusion"])
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient[(index, *pixel)], slope, rtol=1e-2, atol=1e-4)


def test_the_total_weighs_the_diffusion_losses_but_not_cal():
    loss, given = case()
    losses, _ = compute(loss, given)
    weights = np.array([0.5, 1, 2, 3, 0], np.float32)
    expected = (weights * losses.diffusion.numpy() + 10 * losses.cal.numpy()).mean()
    assert losses.total(jt.array(weights)).item() == pytest.approx(expected, rel=1e-5)


def test_impossible_pixels_cost_a_finite_amount():
    loss, given = case()
    given["target"] = given["target"] + 1000
    losses, variables = compute(loss, given)
    assert np.isfinite(losses.vb.numpy()).all()
    for index, t in enumerate(T):
        np.testing.assert_allclose(losses.vb.numpy()[index], reference({}, **row(given, index), t=t)["vb"], rtol=1e-3)
    assert np.isfinite(jt.grad(losses.diffusion.sum(), variables["variance"]).numpy()).all()


@pytest.mark.parametrize(("name", "factor"), [("target", 1e20), ("target", 1e30), ("variance", 1e3), ("variance", 1e6)])
def test_a_divergence_that_overflows_does_not_reach_the_likelihood_of_the_first_timestep(name, factor):
    loss, given = case()
    given[name] = given[name] * np.float32(factor)
    losses, variables = compute(loss, given)
    for index in np.flatnonzero(T == 0):
        wanted = reference({}, **row(given, index), t=0)["vb"]
        np.testing.assert_allclose(losses.vb.numpy()[index], wanted, rtol=1e-2)
    assert not np.isfinite(losses.vb.numpy()[T == 1]).any()
    if name == "target":
        assert np.isfinite(jt.grad(losses.vb.sum(), variables["variance"]).numpy()[T == 0]).all()


def soft_dice(options, target, mask, x_t, t):
    """The soft Dice loss as Milletari et al. write it, with a pixel in both for empty masks; float64, one sample."""
    kept = np.prod(1 - np.linspace(1e-3, 0.2, 100)[: t + 1])
    p = clean_mask(options, target, x_t, kept)
    dice = [(2 * (a * b).sum() + 1) / ((a * a).sum() + (b * b).sum() + 1) for a, b in zip(p, mask)]
    return (1 - np.mean(dice)) * (1 if options.get("predict_xstart") or options.get("predict_v") else kept)


@pytest.mark.parametrize(
    "options", [{"predict_xstart": True}, {"predict_v": True}, {}, {"use_kl": True}, {"learned": False}], ids=str
)
def test_a_weighted_dice_loss_is_added_and_everything_else_stays(options):
    loss, given = case(dice_weight=0.5, **options)
    losses, variables = compute(loss, given)
    without, _ = compute(case(**options)[0], given)
    assert without.dice is None
    for index, t in enumerate(T):
        sample = {name: value for name, value in row(given, index).items() if name in ("target", "mask", "x_t")}
        expected = soft_dice(options, **sample, t=t)
        assert losses.dice.numpy()[index] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    added = losses.diffusion.numpy() - without.diffusion.numpy()
    np.testing.assert_allclose(added, 0.5 * losses.dice.numpy(), rtol=1e-2, atol=1e-4)
    np.testing.assert_array_equal(losses.diff.numpy(), without.diff.numpy())
    np.testing.assert_array_equal(losses.cal.numpy(), without.cal.numpy())
    slope = jt.grad(losses.dice.sum(), variables["target"]).numpy()
    step, pixel = 1e-5, (0, 3, 2)
    for index, t in enumerate(T):
        values = []
        for sign in (1, -1):
            sample = {name: value for name, value in row(given, index).items() if name in ("target", "mask", "x_t")}
            sample["target"][pixel] += sign * step
            values.append(soft_dice(options, **sample, t=t))
        expected = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(slope[(index, *pixel)], expected, rtol=1e-2, atol=1e-5)


def test_the_dice_loss_of_channels_is_their_mean_and_that_of_an_empty_mask_goes_to_zero():
    loss = TrainingLoss(Diffusion(DiffusionConfig(diffusion_steps=100, predict_xstart=True)), dice_weight=1.0)
    mask = np.zeros((1, 2, 4, 4), np.float32)
    mask[0, 0, :2] = 1
    for wrong, expected in ((0.0, 0.0), (1.0, (8 / 9 + 16 / 17) / 2)):
        target = jt.array(np.concatenate([(1 - wrong) * mask[:, :1], mask[:, 1:] + np.float32(wrong)], 1))
        prediction = SimpleNamespace(target=target, variance=None, cal=jt.array(mask))
        losses = loss(prediction, jt.array(mask), jt.array(mask), jt.array(mask), np.array([5]))
        assert losses.dice.item() == pytest.approx(expected, abs=1e-6)


def test_the_dice_gradient_of_predicted_noise_is_bounded_where_there_is_little_signal():
    loss = TrainingLoss(Diffusion(DiffusionConfig(diffusion_steps=1000)), dice_weight=1.0)
    rng = np.random.default_rng(0)
    mask = np.zeros((4, 1, 16, 16), np.float32)
    mask[:, :, 4:10, 5:12] = 1
    noise, t = rng.standard_normal(mask.shape, dtype=np.float32), np.array([10, 300, 700, 999])
    target = jt.array(noise + np.float32(0.1) * rng.standard_normal(mask.shape, dtype=np.float32))
    prediction = SimpleNamespace(target=target, variance=None, cal=jt.array(mask))
    losses = loss(prediction, jt.array(mask), jt.array(noise), jt.array(loss.noisy(mask, noise, t)), t)
    lengths = np.linalg.norm(jt.grad(losses.dice.sum(), target).numpy().reshape(4, -1), axis=1)
    assert np.isfinite(lengths).all()
    assert lengths.max() < 1
    assert lengths[3] < lengths[2] < lengths[1]


def test_dice_and_cross_entropy_train_the_conditioning_network_at_every_fifth_timestep():
    rng = np.random.default_rng(0)
    shape = (5, 2, 6, 4)
    mask, cal = (rng.random(shape) > 0.6).astype(np.float32), rng.random(shape, dtype=np.float32)
    cal[0, 0, 0, :2] = 0, 1  # whose logarithms, and slopes, are infinite
    target = np.zeros(shape, np.float32)
    loss = TrainingLoss(Diffusion(DiffusionConfig(diffusion_steps=100)), anchor=DiceCe(alpha=5, beta=10.0))
    given = {"target": target, "variance": None, "cal": cal, "mask": mask, "noise": target, "x_t": target}
    losses, variables = compute(loss, given)
    p, g = np.float64(np.clip(cal, np.float32(1e-7), np.float32(1 - 1e-7))), np.float64(mask)
    dice = 1 - (2 * (p * g).sum((2, 3)) + 1) / ((p * p).sum((2, 3)) + (g * g).sum((2, 3)) + 1)
    entropy = -(g * np.log(p) + (1 - g) * np.log(1 - p)).mean((1, 2, 3))
    wanted = dice.mean(1) + 10 * entropy
    np.testing.assert_allclose(losses.cal.numpy(), wanted, rtol=1e-4)
    total = losses.total(jt.array(np.ones(5, np.float32)))
    counted = T % 5 == 0
    assert counted.tolist() == [True, True, False, True, False]
    np.testing.assert_allclose(total.item(), (wanted * counted).mean(), rtol=1e-4)
    (slope,) = jt.grad(total, [variables["cal"]])
    slope = slope.numpy()
    assert np.isfinite(slope).all()
    assert slope[counted].any(axis=(1, 2, 3)).all()
    assert not slope[~counted].any()
