"""Do DDIM and DPM-Solver++ find the same mask? Their distance to many-step DDIM by the number of evaluations.

    python -m benchmarks.convergence --model-path RUN --data-dir DIR [--out-dir docs/sampling]

Both solve the same equation, so from the same noise both must come to the same mask. Left, without a network: the
ideal denoise function for the dataset's own masks as the only ones there are, 1000-step schedule. Right: the
trained network with its own schedule. All are compared at the schedule's first timestep: there DPM-Solver++ ends, and
there DDIM stands before its last step, one evaluation short of them all. Writes `convergence.csv` and
`convergence.png`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.trained import Trained
from medsegdiff.base.randomness import generator
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion.process import Diffusion, DiffusionConfig, Output
from medsegdiff.diffusion.samplers import Denoise, Noise, State, ddim, dpm_solver_pp, final

STEPS = (2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200, 500)


class Result(NamedTuple):
    """Distance of a sampler's masks to the reference's."""

    panel: str
    sampler: str
    evaluations: int
    """Of the network, up to the state that is compared."""
    difference: float
    """Mean absolute difference over pixels and masks, at the schedule's first timestep."""
    same: float
    """Share of the masks, cut at one half, with a Dice of at least 0.99."""


def ideal(masks: np.ndarray, diffusion: Diffusion) -> Denoise:
    """The best denoise function where the mask is one of `masks` (K, S S), each as likely: its expectation."""
    kept = diffusion.schedule.alphas_cumprod
    squares = (masks**2).sum(axis=1)

    def denoise(x: np.ndarray, t: float) -> Output:
        log_alpha = np.interp(t, np.arange(len(kept)), 0.5 * np.log(kept))
        alpha, variance = np.exp(log_alpha), -np.expm1(2 * log_alpha)
        flat = x.reshape(len(x), -1).astype(np.float64)
        logits = (alpha * flat @ masks.T - alpha**2 * squares / 2) / variance
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        x0 = (weights / weights.sum(axis=1, keepdims=True)) @ masks
        return Output(np.float32(x0.reshape(x.shape)), None)

    return denoise


def compare(panel: str, denoise: Denoise, config: DiffusionConfig, start: np.ndarray) -> Iterator[Result]:
    """Both samplers with every number of steps, against DDIM along the whole schedule."""

    def noise(_: int) -> np.ndarray:
        return start

    reference = _before_the_last(ddim(denoise, Diffusion(config), noise))
    for steps in (steps for steps in STEPS if steps < config.diffusion_steps):
        found = {
            ("ddim", steps - 1): _before_the_last(ddim(denoise, Diffusion(config, str(steps)), noise)),
            ("dpm++", steps): _solve(denoise, config, noise, steps, 0),
            ("dpm++ without clipping", steps): _solve(denoise, config, noise, steps, None),
            ("dpm++ with dynamic thresholding", steps): _solve(denoise, config, noise, steps, 0.995),
        }
        for (sampler, evaluations), x in found.items():
            yield Result(panel, sampler, evaluations, float(np.abs(x - reference).mean()), _same(x, reference))


def _before_the_last(states: Iterator[State]) -> np.ndarray:
    """Where DPM-Solver++ ends; the last step of DDIM leaves the schedule."""
    return list(states)[-2].x


def _solve(denoise: Denoise, config: DiffusionConfig, noise: Noise, steps: int, threshold: float | None) -> np.ndarray:
    return final(dpm_solver_pp(denoise, Diffusion(config), noise, steps, threshold)).x


def _same(x: np.ndarray, reference: np.ndarray) -> float:
    a, b = x.reshape(len(x), -1) > 0.5, reference.reshape(len(x), -1) > 0.5
    whole = a.sum(axis=1) + b.sum(axis=1)
    dice = np.where(whole > 0, 2 * (a & b).sum(axis=1) / np.maximum(whole, 1), 1)
    return float((dice >= 0.99).mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Compute both panels, write the numbers and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--masks", type=int, default=300, help="masks of the ideal denoise function")
    parser.add_argument("--images", type=int, default=8, help="images, or starting points")
    parser.add_argument("--out-dir", type=Path, default=Path("docs/sampling"))
    options = parser.parse_args(argv)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    trained = Trained(options.model_path, options.data_dir, options.masks)
    dataset, count = trained.dataset, options.images
    masks = np.stack([dataset.mask(index).ravel() for index in range(len(dataset))]).astype(np.float64)
    start = np.stack(
        [generator("convergence", k).standard_normal(dataset.mask(0).shape, np.float32) for k in range(count)]
    )

    config = DiffusionConfig(diffusion_steps=1000, predict_xstart=True)
    results = list(compare("ideal denoise function, T = 1000", ideal(masks, Diffusion(config)), config, start))
    config = trained.weights.config.diffusion
    denoiser = trained.segmenter(SamplingConfig()).denoiser
    condition = denoiser.encode(np.stack([dataset.image(index) for index in range(count)]))
    panel = f"trained network, T = {config.diffusion_steps}"
    results += compare(panel, partial(denoiser.denoise, condition=condition), config, start)

    with (options.out_dir / "convergence.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Result._fields)
        rows.writerows((*r[:3], f"{r.difference:.3e}", f"{r.same:.3f}") for r in results)
    draw(options.out_dir / "convergence.png", results)
    for r in results:
        print(f"{r.panel:34} {r.sampler:28} {r.evaluations:4}  {r.difference:.2e}  same mask {r.same:.0%}")


def draw(path: Path, results: list[Result]) -> None:
    """Distance over steps, a panel for each denoise function."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = list(dict.fromkeys(r.panel for r in results))
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True), panels):
        for sampler, marker in zip(dict.fromkeys(r.sampler for r in results), "s^vD"):
            points = [(r.evaluations, r.difference) for r in results if (r.panel, r.sampler) == (panel, sampler)]
            axes.loglog(*zip(*points), marker=marker, markersize=4, label=sampler)
        axes.set(title=panel, xlabel="network evaluations")
        axes.set_xticks(STEPS, [str(step) for step in STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean absolute difference\nto DDIM along the whole schedule")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
