"""What each choice is worth: the same short training of each configuration, on real images, scored and compared.

A training that was stopped is continued, and one that is scored is not repeated: the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import medsegdiff
from benchmarks.ablation_figures import draw_curves, draw_masks
from benchmarks.trained import Trained
from medsegdiff.app.sample import SampleOptions, sample
from medsegdiff.base.files import replacing
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.masks.statistics import summarise


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        base: the configuration that comes with the package, or a YAML file, which all others change
        rows: what each configuration changes, by name; the first is the one that all are compared with
        steps: of a training, unless it says otherwise
        common: what all of them change
        held_out: score the images that training held out, not the test images: for choices, which must not see those
    """

    base: str
    rows: Mapping[str, Mapping[str, Any]]
    steps: int
    common: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool = False

    def options(self, name: str, steps: int) -> dict[str, Any]:
        """What a configuration changes of the base, with its steps; a `share` of them where each takes longer."""
        changed = {**self.common, **self.rows[name]}
        steps = round(steps * changed.pop("share", 1))
        return {**changed, "steps": steps, "lr_anneal_steps": steps}

    def main(self, description: str, out_dir: Path, argv: Sequence[str] | None = None) -> None:
        """Train and score what is not scored yet, print the table, draw losses and masks."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--data-dir", type=Path, required=True)
        parser.add_argument("--out-dir", type=Path, default=out_dir)
        parser.add_argument("--only", nargs="+", default=list(self.rows), choices=self.rows)
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
        parser.add_argument("--steps", type=int, default=self.steps)
        parser.add_argument("--images", type=int, default=1000, help="to score, at most")
        options = parser.parse_args(argv)
        for seed in options.seeds:  # so that a first table stands after the first seed
            for name in options.only:
                folder = options.out_dir / f"{name}-{seed}"
                if not (folder / "scores.csv").exists():
                    trained = self.train(folder / "run", name, seed, options)
                    save(folder / "scores.csv", self.score(trained, options))
                lines = self.table(options)
                save(options.out_dir / "table.md", lines)
        print(lines)
        studied = {name: options.out_dir / f"{name}-{options.seeds[0]}" for name in options.only}
        draw_curves(options.out_dir / "curves.png", studied)
        if not self.held_out:
            draw_masks(options.out_dir / "masks.jpg", studied)

    def train(self, run: Path, name: str, seed: int, options: argparse.Namespace) -> Path:
        """Train one configuration, or continue; returns where its checkpoints are."""
        where = {"data_dir": str(options.data_dir), "out_dir": str(run), "seed": seed}
        medsegdiff.train(self.base, **self.options(name, options.steps), **where)
        return run

    def score(self, run: Path, options: argparse.Namespace) -> str:
        """Dice and IoU of every image or volume, means over its classes, as CSV."""
        sampling = SamplingConfig(precision=self.common.get("precision", "fp32"))
        if self.held_out:
            trained = Trained(run, options.data_dir, options.images, self.held_out)
            results = trained.segment(sampling, trained.dataset.ids)
            dice = {result.id: trained.dice(result.id, result.probability) for result in results}
            found = {name: (one, one / (2 - one)) for name, one in dice.items()}
        else:
            where = {"model_path": str(run), "data_dir": str(options.data_dir), "out_dir": str(run.parent / "masks")}
            sample(SampleOptions(**where, backend="jittor", limit=options.images), sampling)
            scores = medsegdiff.evaluate(where["out_dir"], data_dir=options.data_dir).scores
            found = {score.id: (score.metrics["dice"], score.metrics["iou"]) for score in scores}
        rows = [f"{name},{dice:.6f},{iou:.6f}\n" for name, (dice, iou) in sorted(found.items())]
        return "".join(["id,dice,iou\n", *rows])

    def table(self, options: argparse.Namespace) -> str:
        """Markdown of what is scored so far; the mean over seeds of each image counts once."""
        first = next(iter(self.rows))
        lines = [
            f"| configuration ({options.steps} steps) | seeds | Dice | IoU | Dice minus {first}'s |",
            "| --- | ---: | --- | --- | --- |",
        ]
        found = {}
        for name in self.rows:
            paths = [options.out_dir / f"{name}-{seed}" / "scores.csv" for seed in options.seeds]
            found[name] = {path.parent.name.rpartition("-")[2]: read(path) for path in paths if path.exists()}
        for name, by_seed in found.items():
            if not by_seed:
                continue
            ids = sorted(next(iter(by_seed.values())))
            scores = np.array([[scores[image] for image in ids] for scores in by_seed.values()]).mean(axis=0)
            cells = [name, str(len(by_seed)), *(interval(scores[:, column]) for column in (0, 1))]
            alike = [seed for seed in by_seed if seed in found[first]]
            if name != first and alike:
                moved = [[by_seed[seed][image][0] - found[first][seed][image][0] for image in ids] for seed in alike]
                cells.append(interval(np.mean(moved, axis=0), "+.2f"))
            lines.append("| " + " | ".join([*cells, ""][:5]) + " |")
        return "\n".join(lines) + "\n"


def save(path: Path, text: str) -> None:
    """Write a file, whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, tuple[float, float]]:
    """Dice and IoU, in percent, by image."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: (100 * float(row["dice"]), 100 * float(row["iou"])) for row in csv.DictReader(file)}


def interval(values: np.ndarray, form: str = ".2f") -> str:
    """Mean and 95 % interval."""
    found = summarise(values)
    return f"{found.mean:{form}} ({found.low:{form}} to {found.high:{form}})"
