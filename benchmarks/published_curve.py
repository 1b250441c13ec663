"""Our training curve at the settings of the published Jittor project, drawn over the two logs that it published.

    python -m benchmarks.published_curve --data-dir DIR --logs DIR [--steps 101]

`--logs` is the folder of its Jittor.csv and Pytorch.csv, each with a row every 100 steps: 64 x 64 pixels, width 128,
batch 16, 100 diffusion steps, learning rate 1e-4. They don't say what the network predicted. Their loss at low noise
(q0) lies above that at high noise (q3), as where noise is predicted, and no column has the variance's term, so there is
none here unless `--learn-sigma` is given. Training goes on where it was stopped. Writes log.csv, curve.png and
README.md into `--out`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import medsegdiff
from benchmarks.alignment import read
from medsegdiff.config.run import RunConfig

EVERY = 100  # steps that a published row is the mean of
SETTINGS = {
    "image_size": 64,
    "num_channels": 128,
    "batch_size": 16,
    "lr": 1e-4,
    "diffusion_steps": 100,
    "tensorboard": False,
    "log_interval": 1,
    "save_interval": 10,
    "keep": 1,
}
PUBLISHED = {"Jittor.csv": "published, Jittor", "Pytorch.csv": "published, PyTorch"}
COLUMNS = ("loss_diff", "loss_diff_q0", "loss_diff_q3", "loss_cal", "grad_norm", "param_norm")
Curve = dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="ISIC 2016 with Train and Test")
    parser.add_argument("--logs", type=Path, required=True, help="folder of the published logs")
    parser.add_argument("--steps", type=int, default=EVERY + 1, help="the first is a row of its own")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: faster, theirs is not known"
    )
    parser.add_argument("--learn-sigma", action="store_true", help="with the variance's term")
    parser.add_argument("--work", type=Path, default=Path("results/published-curve"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("logs/published-curve"), help="what is to be kept")
    options = parser.parse_args(argv)
    where = {"data_dir": str(options.data_dir), "out_dir": str(options.work)}
    config = {**SETTINGS, **where, "learn_sigma": options.learn_sigma, "steps": options.steps}
    config["precision"] = options.precision
    medsegdiff.train(RunConfig.from_flat(config))
    ours = read(options.work / "log.csv", COLUMNS)
    theirs = {label: read(options.logs / name, COLUMNS) for name, label in PUBLISHED.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.work / "log.csv", options.out / "log.csv")
    draw(options.out / "curve.png", ours, theirs)
    (options.out / "README.md").write_text(page(options, ours, theirs), encoding="utf-8")


def rows(ours: Curve) -> Curve:
    """Our steps as their rows: the first alone, their step 0, then the means of each further hundred."""
    ends = range(1, len(ours["step"]) + 1, EVERY)
    means = {
        name: np.array([np.nanmean(values[start:end]) for start, end in zip([0, *ends], ends)])
        for name, values in ours.items()
    }
    return {**means, "step": np.array(ends) - 1}


def draw(path: Path, ours: Curve, theirs: dict[str, Curve]) -> None:
    """One panel a column: every step of ours, and the rows of all."""
    from matplotlib.figure import Figure

    figure, last = Figure(figsize=(12, 6), layout="constrained"), max(200, ours["step"][-1])
    for axes, name in zip(figure.subplots(2, 3).flat, COLUMNS):
        axes.plot(ours["step"] - 1, ours[name], color="C0", linewidth=0.6, alpha=0.5, label="this package, each step")
        means = rows(ours)
        axes.plot(means["step"], means[name], "o-", color="C0", label=f"this package, means of {EVERY}")
        for (label, log), style in zip(theirs.items(), ("s--", "^--")):
            shown = log["step"] <= last
            axes.plot(log["step"][shown], log[name][shown], style, label=label)
        axes.set(title=name, xlabel="step", yscale="linear" if name == "param_norm" else "log")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def page(options: argparse.Namespace, ours: Curve, theirs: dict[str, Curve]) -> str:
    """The rows that all have, as a table in Markdown."""
    means = rows(ours)
    variance, flags = ("with", " --learn-sigma") if options.learn_sigma else ("without", "")
    flags += "" if options.precision == "fp32" else f" --precision {options.precision}"
    lines = [
        "# Our curve over the published ones",
        "",
        f"`python -m benchmarks.published_curve --data-dir DIR --logs DIR --steps {options.steps}{flags}`: 64 x 64",
        f"pixels, width 128, batch 16, lr 1e-4, 100 diffusion steps, noise predicted, {variance} the variance's term.",
        f"A row is the mean of {EVERY} steps,",
        "row 0 is the first step. Weights, batches and noise were drawn anew: the curves can be alike, not equal.",
        "",
        "| step | log | " + " | ".join(COLUMNS) + " |",
        "| ---: | --- |" + " ---: |" * len(COLUMNS),
    ]
    for index, step in enumerate(means["step"]):
        logs = {"this package": (means, index)}
        logs.update({label: (log, row) for label, log in theirs.items() for row in np.flatnonzero(log["step"] == step)})
        for label, (log, position) in logs.items():
            lines.append(f"| {step} | {label} | " + " | ".join(f"{log[name][position]:.4g}" for name in COLUMNS) + " |")
    return "\n".join([*lines, "", "![Curves](curve.png)", ""])


if __name__ == "__main__":
    main()
