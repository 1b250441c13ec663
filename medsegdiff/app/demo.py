"""`medsegdiff demo`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff.app.options import Parser, output_folder
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.base.screen import tell
from medsegdiff.config.choices import Precision
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig, difference
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.kernels.precision import check
from medsegdiff.runtime import requirements

if TYPE_CHECKING:
    from medsegdiff.evaluation.report import Report

SUMMARY = "try everything on generated images, in minutes on 2 cores"

OVERVIEW = "overview.png"


@dataclass(frozen=True)
class Plan:
    """How large the demo is: small enough for minutes on 2 cores, large enough to segment well."""

    train_images: int = 400
    test_images: int = 12
    picture_size: int = 128
    image_size: int = 64
    steps: int = 180
    batch_size: int = 4
    members: int = 5
    shown: int = 6


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.option("--out-dir", "demo", "folder for everything that the demo writes")
    parser.option("--steps", Plan.steps, "training steps")
    parser.option("--seed", 0, "seed of images, weights and noise")
    parser.option("--precision", "fp32", "number format of convolutions, as for train and sample", Precision)


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    return demo(output_folder(options.out_dir), Plan(steps=options.steps), options.seed, options.precision)


def demo(out: Path, plan: Plan, seed: int = 0, precision: str = "fp32") -> int:
    """Generate images, segment them with the package's network, train one, and score and draw both, all in `out`.

    What is done already stays: an interrupted demo is continued, and a complete one only scored and drawn again.

    Raises:
        InputError: `out` cannot be written, or holds what is not this demo's, or the machine lacks the precision or
            what Jittor needs.
    """
    from medsegdiff.app.train import train
    from medsegdiff.checkpoints.folder import list_checkpoints
    from medsegdiff.checkpoints.shipped import DEFAULT
    from medsegdiff.data.phantom import write_isic
    from medsegdiff.evaluation.report import check_free
    from medsegdiff.web.report import PAGE, WRITER, write_report

    config = _configuration(out, plan, seed, precision)
    requirements.check()  # before images are drawn and segmented, which does without Jittor
    check(precision)
    _check_run(Path(config.training.out_dir), config)
    ledger = Ledger(out, "demo")
    ledger.check([OVERVIEW])
    Ledger(out, WRITER).check([PAGE])
    data, run, first, predictions = out / "data", out / "run", out / "first", out / "predictions"
    check_free(first)
    check_free(predictions)
    sampling = SamplingConfig(members=plan.members, seed=seed, precision=precision)

    print(f"1/6 drawing {plan.train_images} training and {plan.test_images} test images", flush=True)
    write_isic(data, plan.train_images, plan.test_images, plan.picture_size, seed)

    print(
        f"2/6 segmenting the test images with the package's network, {DEFAULT}; it was trained on photos only",
        flush=True,
    )
    _segment(sampling, DEFAULT, data, first, config)

    if (kept := run / f"step-{plan.steps:06d}") in list_checkpoints(run):
        print(f"3/6 keeping the trained network {kept}; to train again, give another --out-dir", flush=True)
    else:
        print(f"3/6 training a small network for {plan.steps} steps on generated images alone", flush=True)
    if stopped := train(config):
        return stopped

    print("4/6 segmenting the test images with it, and comparing the masks with the ground truth", flush=True)
    report = _segment(sampling, config.training.out_dir, data, predictions, config)

    print("5/6 drawing the overview", flush=True)
    with ledger.together(OVERVIEW) as stage:
        _draw(stage / OVERVIEW, data, predictions, report, plan.shown)

    print("6/6 writing the report", flush=True)
    write_report([run, predictions, first], out / PAGE)
    tell(_whereabouts(out), report=out / PAGE, predictions=predictions, first=first, run=run, data=data)
    return 0


def _segment(sampling: SamplingConfig, model: str, data: Path, out: Path, config: RunConfig) -> Report:
    """Sample and score the test images."""
    from medsegdiff.app.evaluate import evaluate
    from medsegdiff.app.sample import SampleOptions, sample
    from medsegdiff.data.layouts import isic

    options = SampleOptions(
        model,
        data_dir=str(data),
        out_dir=str(out),
        save_members=True,
        maps=True,
        overwrite=True,
        cache_dir=config.data.cache_dir,
    )
    sample(options, sampling)
    return evaluate(str(out), {case.id: case.mask for case in isic.find(data, "test") if case.mask})


def _configuration(out: Path, plan: Plan, seed: int, precision: str) -> RunConfig:
    return RunConfig(
        network=NetworkConfig(image_size=plan.image_size, num_channels=32),
        # These and the Dice loss make a few hundred steps enough: the clean mask as target teaches at every noise
        # level what the image shows, and the variance's loss, scaled down, does not drown the mask's.
        diffusion=DiffusionConfig(diffusion_steps=100, predict_xstart=True, rescale_learned_sigmas=True),
        # The published rule for masks (> 0 after smoothing) widens them by a pixel: much, at this size.
        data=DataConfig(
            data_name="isic",
            data_dir=str(out / "data"),
            mask_resize="nearest",
            augment=True,
            cache_dir=str(out / "cache"),
        ),
        training=TrainingConfig(
            out_dir=str(out / "run"),
            steps=plan.steps,
            batch_size=plan.batch_size,
            lr=1e-3,
            lr_anneal_steps=plan.steps,
            dice_weight=0.5,
            ema_rate="0.98",
            precision=precision,
            seed=seed,
            log_interval=max(1, min(25, plan.steps // 4)),
            save_interval=100,
            keep=1,
        ),
    )


def _check_run(run: Path, config: RunConfig) -> None:
    """Refuse a folder that holds another training; the demo's own may have been moved.

    Raises:
        InputError: it does.
    """
    from medsegdiff.checkpoints.folder import list_checkpoints, read_state

    for path in list_checkpoints(run)[-1:]:
        found, here = RunConfig.from_flat(read_state(path)["config"]), config.data
        found = dataclasses.replace(
            found,
            data=dataclasses.replace(found.data, data_dir=here.data_dir, cache_dir=here.cache_dir),
            training=dataclasses.replace(found.training, out_dir=config.training.out_dir),
        )
        for section in dataclasses.fields(RunConfig):
            if differs := difference(getattr(config, section.name), getattr(found, section.name)):
                raise InputError(f"{run}: holds another run, trained with {differs}; choose another --out-dir")


def _draw(path: Path, data: Path, predictions: Path, report: Report, shown: int) -> None:
    """Draw images from the best to the worst, at equal distances in the ranking."""
    import numpy as np

    from medsegdiff.data.layouts import isic
    from medsegdiff.io.masks import read_mask
    from medsegdiff.io.pictures import read_image
    from medsegdiff.io.predictions import read_probability
    from medsegdiff.plots.overview import Row, overview

    cases = {case.id: case for case in isic.find(data, "test")}
    ranked = sorted(report.scores, key=lambda score: -score.metrics["dice"])
    picked = [ranked[i] for i in np.linspace(0, len(ranked) - 1, min(shown, len(ranked))).round().astype(int)]
    rows = []
    for score in picked:
        case, stem = cases[score.id], predictions / score.id
        members = sorted(predictions.glob(f"{score.id}_member*.png"))
        rows.append(
            Row(
                score.id,
                read_image(case.image),
                read_probability(Path(f"{stem}_prob.png")),
                truth=read_mask(case.mask) > 0.5,
                members=[read_probability(member) for member in members],
                std=read_probability(Path(f"{stem}_std.png")),
                dice=score.metrics["dice"],
            )
        )
    overview(rows, path)


def _whereabouts(out: Path) -> str:
    from medsegdiff.web.report import PAGE

    places = {
        PAGE: "the report: open it in a browser",
        OVERVIEW: "images, ground truth, sampled masks, mean and uncertainty",
        "predictions": "masks, probabilities, uncertainty and overlays of every test image; metrics.csv and .json",
        "first": "the same by the package's network",
        "run": "the trained network, log.csv, TensorBoard curves",
        "data": "the generated images, in the ISIC 2016 layout",
    }
    width = max(len(str(out / place)) for place in places)
    return "\n".join(f"{out / place!s:{width}}  {what}" for place, what in places.items())
