"""A training compared with a plain U-Net on the same images for the same processor time: a table with intervals.

    OMP_NUM_THREADS=1 python -m benchmarks.baseline --config FILE --data-dir DIR --work results/NAME --out logs/NAME

Trains (`medsegdiff train`), segments the test images with ensembles of 5, trains `benchmarks.plain_unet` for the
processor time that the training took, segments with that, scores both, and writes table.md, cases.png, the logs,
options and scores into `--out`. What is done is not done again; a training that was stopped continues, and its
processor time counts from the start (seconds.json).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from medsegdiff.base.files import replacing
from medsegdiff.config.files import find_config

SIDES = {"predictions": "this package, ensembles of 5", "plain-unet/predictions": "plain U-Net"}
_SHOWN = 4  # cases, from the best to the worst
_SIDE = 240  # pixels of a shown case's height


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="options of the training")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and predictions")
    parser.add_argument("--out", type=Path, required=True, help="what is to be kept")
    options = parser.parse_args(argv)
    work, run = options.work, options.work / "run"
    work.mkdir(parents=True, exist_ok=True)
    steps = yaml.safe_load(find_config(options.config).read_text(encoding="utf-8"))["steps"]
    data, ours = ["--data-dir", str(options.data_dir)], [sys.executable, "-m", "medsegdiff"]
    if not (run / f"step-{steps:06d}").exists():
        _timed(work, "train", [*ours, "train", "--config", options.config, *data, "--out-dir", str(run)])
    if not (work / "predictions/metrics.json").exists():
        to = ["--out-dir", str(work / "predictions"), "--members", "5", "--postprocess"]
        _timed(work, "sample", [*ours, "sample", "--model-path", str(run), *data, *to])
        _evaluate(ours, data, work / "predictions")
    if not (work / "plain-unet/predictions/metrics.json").exists():
        minutes = str(_seconds(work)["train"] / 60)
        words = ["--config", str(run / "config.yaml"), *data, "--out-dir", str(work / "plain-unet")]
        _timed(work, "plain-unet", [sys.executable, "-m", "benchmarks.plain_unet", *words, "--minutes", minutes])
        _evaluate(ours, data, work / "plain-unet/predictions")
    options.out.mkdir(parents=True, exist_ok=True)
    for source, name in (
        (run / "log.csv", "log.csv"),
        (run / "config.yaml", "config.yaml"),
        (work / "predictions/metrics.json", "metrics.json"),
        (work / "plain-unet/predictions/metrics.json", "metrics-plain-unet.json"),
        (work / "plain-unet/log.csv", "log-plain-unet.csv"),
    ):
        shutil.copyfile(source, options.out / name)
    scores = {side: json.loads((work / side / "metrics.json").read_text())["metrics"] for side in SIDES}
    (options.out / "table.md").write_text(table(scores, _seconds(work)), encoding="utf-8")
    draw(options.out / "cases.png", work)


def table(scores: dict[str, dict[str, Any]], seconds: dict[str, float]) -> str:
    """Markdown: the Dice of each class with its 95 % interval over the test cases, and how long was trained."""
    classes = sorted(name for name in scores["predictions"] if name.startswith("dice_class")) or ["dice"]
    heads = [f"Dice, class {name[len('dice_class') :]}" if len(classes) > 1 else "Dice" for name in classes]
    lines = [f"| network | {' | '.join(heads)} | trained for |", "| --- |" + " --- |" * (len(heads) + 1)]
    spent = {"predictions": seconds["train"], "plain-unet/predictions": seconds["plain-unet"]}
    for side, words in SIDES.items():
        found = [scores[side][name] for name in classes]
        cells = [f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in found]
        lines.append(f"| {words} | {' | '.join(cells)} | {spent[side] / 60:.0f} minutes of processor time |")
    return "\n".join(lines) + "\n"


def draw(path: Path, work: Path) -> None:
    """Overlays of some test cases, ordered from our best to our worst; the plain U-Net's below."""
    dice = np.genfromtxt(work / "predictions/metrics.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    order = np.argsort(-dice["dice"])
    chosen = [
        str(dice["id"][order[place]]) for place in np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(int)
    ]
    rows = []
    for side in SIDES:
        pictures = [Image.open(work / side / f"{id}_overlay.png").convert("RGB") for id in chosen]
        sizes = [(picture.width * _SIDE // picture.height, _SIDE) for picture in pictures]
        rows.append(np.hstack([np.asarray(picture.resize(size)) for picture, size in zip(pictures, sizes)]))
    Image.fromarray(np.vstack(rows)).save(path)


def _evaluate(ours: list[str], data: list[str], predictions: Path) -> None:
    subprocess.run([*ours, "evaluate", "--pred-path", str(predictions), *data], check=True)


def _timed(work: Path, name: str, command: list[str]) -> None:
    """Run a command; its processor time is added to seconds.json, even if it was stopped."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run(command, check=True)
    finally:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = _seconds(work)
        found[name] = found.get(name, 0) + ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
        with replacing(work / "seconds.json") as beside:
            beside.write_text(json.dumps(found), encoding="utf-8")


def _seconds(work: Path) -> dict[str, float]:
    path = work / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    main()
