import csv

import numpy as np
import pytest

from benchmarks import convergence
from medsegdiff.diffusion.process import Diffusion, DiffusionConfig


def test_both_panels_are_measured_and_drawn(given, tmp_path, monkeypatch):
    monkeypatch.setattr(convergence, "STEPS", (2, 5, 50))
    convergence.main([*given, "--masks", "3", "--images", "2", "--out-dir", str(tmp_path)])
    with (tmp_path / "convergence.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = [(row["panel"], row["sampler"], int(row["evaluations"])) for row in rows]
    ideal, trained = "ideal denoise function, T = 1000", "trained network, T = 8"
    assert [count for panel, sampler, count in points if (panel, sampler) == (ideal, "ddim")] == [1, 4, 49]
    assert [count for panel, sampler, count in points if (panel, sampler) == (trained, "dpm++")] == [2, 5]
    assert (tmp_path / "convergence.png").stat().st_size > 0


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_results_are_labelled_by_the_evaluations_up_to_the_state_that_is_compared(steps, monkeypatch):
    monkeypatch.setattr(convergence, "STEPS", (steps,))
    config = DiffusionConfig(diffusion_steps=100, predict_xstart=True)
    masks = (np.random.default_rng(0).random((4, 16)) > 0.5).astype(np.float64)
    start = np.random.default_rng(1).standard_normal((2, 1, 4, 4), np.float32)
    denoise = convergence.ideal(masks, Diffusion(config))
    times = []

    def noting(x, t):
        times.append(t)
        return denoise(x, t)

    found = {result.sampler: result.evaluations for result in convergence.compare("p", noting, config, start)}
    assert found.pop("ddim") == steps - 1
    assert set(found.values()) == {steps}
    # In all: the reference, DDIM with its last step that is not compared, and the three solvers.
    assert len(times) == 100 + 4 * steps


def test_the_ideal_denoise_function_finds_the_mask_in_little_noise():
    config = DiffusionConfig(diffusion_steps=100, predict_xstart=True)
    masks = (np.random.default_rng(0).random((4, 16)) > 0.5).astype(np.float64)
    noisy = np.float32(masks.reshape(4, 1, 4, 4) + 0.01)
    target = convergence.ideal(masks, Diffusion(config))(noisy, 0.0).target
    np.testing.assert_allclose(target.reshape(4, 16), masks, atol=1e-6)
