"""One training in both frameworks: this package and PyTorch, from the same weights, with the same random numbers.

    python -m benchmarks.alignment --data-dir DIR [--config isic-small] [--steps 2000] [--lr 1e-4]

Trains the configuration with this package, with the PyTorch network (`benchmarks.torch_trainer`), and once more with
this package from weights with a relative difference of 1e-7, to show what rounding alone changes. Samples the test
images with the weights of each from the same noise, scores them, and writes the logs, curves.png and README.md, the
table, into `--out`. Each part that is done is not done again; a training that was stopped continues.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml

import medsegdiff
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.config.files import find_config
from medsegdiff.config.run import RunConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.layouts import isic
from medsegdiff.data.loader import Batches
from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.training.logbook import Logbook

Logs = dict[str, dict[str, np.ndarray]]  # side, column
SIDES = {"ours": "this package, Jittor", "pytorch": "PyTorch", "nudged": "this package, first weights changed by 1e-7"}
CURVES = ("loss", "loss_diff", "loss_cal", "vb", "grad_norm")
NUDGE = 1e-7
SETTLED = 200  # steps after which the curves are compared
METRICS = {"published_iou": "Mean IoU", "published_dice": "Mean Dice", "iou": "IoU at 0.5", "dice": "Dice at 0.5"}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, sample, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="ISIC 2016 with Train and Test")
    parser.add_argument("--config", default="isic-small")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, help="learning rate; default: the configuration's")
    parser.add_argument("--work", type=Path, default=Path("results/alignment"), help="checkpoints and predictions")
    parser.add_argument("--out", type=Path, default=Path("logs/alignment"), help="what is to be kept")
    parser.add_argument("--limit", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--train-alone", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.train_alone:
        TRAININGS[options.train_alone](configuration(options, options.work / options.train_alone))
        return
    for side in SIDES:
        if not (options.work / side / f"step-{options.steps:06d}").exists():
            again = sys.argv[1:] if argv is None else argv  # in a process of its own: each framework has its threads
            subprocess.run([sys.executable, "-m", "benchmarks.alignment", *again, "--train-alone", side], check=True)
    scores = {side: score(options.work / side, options.data_dir, options.limit) for side in SIDES}
    logs = {side: read(options.work / side / "log.csv") for side in SIDES}
    options.out.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        shutil.copyfile(options.work / side / "log.csv", options.out / f"log-{side}.csv")
    draw(options.out / "curves.png", logs)
    (options.out / "README.md").write_text(page(options, logs, scores), encoding="utf-8")


def configuration(options: argparse.Namespace, out: Path) -> RunConfig:
    """The configuration of all trainings, except for the folder they write to."""
    given = yaml.safe_load(find_config(options.config).read_text(encoding="utf-8"))
    ours = {"data_dir": str(options.data_dir), "out_dir": str(out), "tensorboard": False}
    rate = {"lr": options.lr} if options.lr else {}
    return RunConfig.from_flat({**given, **ours, **rate, "steps": options.steps, "lr_anneal_steps": options.steps})


def _medsegdiff(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "medsegdiff", *arguments], check=True)


def train_nudged(config: RunConfig) -> None:
    """Train from initial weights that differ in their last bits."""
    initialise = MedSegDiff.initialise

    def nudged(network: MedSegDiff, seed: int = 0) -> MedSegDiff:
        initialise(network, seed)
        rng = np.random.default_rng(0)
        for parameter in network.parameters():
            noise = rng.standard_normal(parameter.shape).astype(np.float32)
            parameter.assign(parameter * (1 + NUDGE * noise))
        return network

    with patch.object(MedSegDiff, "initialise", nudged):
        medsegdiff.train(config)


def train_pytorch(config: RunConfig) -> None:
    """Train in PyTorch; the run's folder gets log.csv and the last checkpoint."""
    from benchmarks.torch_trainer import TorchTrainer

    training, data, out = config.training, config.data, Path(config.training.out_dir)
    cases = isic.find(Path(data.data_dir), "train")
    dataset = prepare(cases, config.network.image_size, mask_resize=data.mask_resize)
    out.mkdir(parents=True, exist_ok=True)
    trainer, logbook, saved = TorchTrainer(config), Logbook(out, tensorboard=False), out / "training.pt"
    logbook.resume(0, {})
    if saved.exists():
        found = trainer.restore(saved)
        logbook.resume(found["row"], found["pending"])
    batches = Batches(dataset, training.batch_size, training.seed, data.augment, **data.variants)
    while trainer.step < training.steps:
        losses, t, norms = trainer.train_step(batches[trainer.step])
        logbook.add(losses, t, len(trainer.diffusion), norms)
        if trainer.step % training.log_interval == 0:
            logbook.write(trainer.step, trainer.step * training.batch_size)
        if trainer.step % training.save_interval == 0:
            trainer.save(saved, row=logbook.row, pending=logbook.state())
            print(f"PyTorch: step {trainer.step} of {training.steps}", file=sys.stderr, flush=True)
    if trainer.step > logbook.row:
        logbook.write(trainer.step, trainer.step * training.batch_size)
    checkpoints.save(out, trainer.checkpoint())


TRAININGS = {"ours": medsegdiff.train, "pytorch": train_pytorch, "nudged": train_nudged}


def score(run: Path, data_dir: Path, limit: int) -> dict[str, float]:
    """Sample the test images with the run's averaged weights, and score them; done once."""
    folder = run / "predictions"
    if not (folder / "metrics.json").exists():
        limited = [f"--limit={limit}"] if limit else []
        _medsegdiff("sample", f"--model-path={run}", f"--data-dir={data_dir}", f"--out-dir={folder}", *limited)
        _medsegdiff("evaluate", f"--pred-path={folder}", f"--data-dir={data_dir}")
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {name: found["metrics"][name]["mean"] for name in METRICS}


def read(path: Path, columns: Sequence[str] = CURVES) -> dict[str, np.ndarray]:
    """The step and the columns of a log; what is empty is NaN."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in ("step", *columns)}


def differences(logs: Logs, side: str) -> dict[str, tuple[float, float]]:
    """How far a side is from ours after `SETTLED` steps, as shares: of the means, and the mean of each row's."""
    ours, theirs = logs["ours"], logs[side]
    late = ours["step"] > SETTLED
    return {
        name: (
            float(np.nanmean(theirs[name][late]) / np.nanmean(ours[name][late]) - 1),
            float(np.nanmean(np.abs(theirs[name] / ours[name] - 1)[late])),
        )
        for name in CURVES
    }


def draw(path: Path, logs: Logs) -> None:
    """All curves, one over the other, and their differences from ours below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots(2, len(CURVES), sharex=True, height_ratios=[2, 1])
    for name, (above, below) in zip(CURVES, axes.T):
        for (side, log), colour, style in zip(logs.items(), ("C0", "C1", "C2"), ("-", "--", ":")):
            above.plot(log["step"], log[name], style, color=colour, label=SIDES[side], linewidth=1.2)
            if side != "ours":
                below.plot(log["step"], 100 * (log[name] / logs["ours"][name] - 1), style, color=colour, linewidth=1)
        above.set(title=name, yscale="log")
        below.axhline(0, color="grey", linewidth=0.5)
        below.set(xlabel="step", ylabel="difference, %" if name == CURVES[0] else "")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(logs))
    figure.savefig(path, dpi=110)


def page(options: argparse.Namespace, logs: Logs, scores: dict[str, dict[str, float]]) -> str:
    """The table, in Markdown."""
    given = f"--config {options.config} --steps {options.steps}" + (f" --lr {options.lr:g}" if options.lr else "")
    given += f" --work {options.work} --out {options.out}"
    lines = [
        "# One training, two frameworks",
        "",
        "```",
        f"python -m benchmarks.alignment --data-dir DIR {given}",
        "```",
        "",
        "Initial weights, batches, timesteps, noise and dropout masks are the same, and so is the noise of sampling.",
        f"The third training is ours again, from weights that differ by a relative {NUDGE:g}: it shows how much",
        "rounding alone changes a training.",
        "",
        "| Implementation | " + " | ".join(METRICS.values()) + " |",
        "| --- |" + " ---: |" * len(METRICS),
    ]
    for side, label in SIDES.items():
        lines.append(f"| {label} | " + " | ".join(f"{scores[side][name]:.4f}" for name in METRICS) + " |")
    lines += [
        "",
        f"Differences from our first training after step {SETTLED}: of the means over all rows of the log, and in",
        "brackets the mean absolute difference of single rows.",
        "",
        "| | " + " | ".join(CURVES) + " |",
        "| --- |" + " ---: |" * len(CURVES),
    ]
    for side in [side for side in SIDES if side != "ours"]:
        far = differences(logs, side)
        lines.append(f"| {SIDES[side]} | " + " | ".join(f"{a:+.1%} ({b:.1%})" for a, b in far.values()) + " |")
    lines += [
        "",
        "![Curves](curves.png)",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
