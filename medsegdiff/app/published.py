"""The three scripts of the published project: its names and flags, our code.

Flags are those of the public PyTorch code (MIT), with its defaults; booleans are True or False.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from medsegdiff.app.options import in_our_words
from medsegdiff.base.errors import InputError
from medsegdiff.config.network import NetworkConfig, published_version
from medsegdiff.config.run import RunConfig, pick
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion.process import DiffusionConfig


def boolean(text: str) -> bool:
    """A published boolean: True or False, also yes, no, 1, 0."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text}: must be True or False")
    return words[text.lower()]


MODEL_FLAGS: dict[str, Any] = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "dpm_solver": False,
    "version": "new",
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_fp16": False,
    "use_kl": False,
    "predict_xstart": False,
    "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
}

DATA_FLAGS: dict[str, Any] = {
    "data_name": "ISIC",
    "data_dir": "",
    "out_dir": "./results/",
    "batch_size": 1,
}

TRAIN_FLAGS: dict[str, Any] = {
    "schedule_sampler": "uniform",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "lr_anneal_steps": 0,
    "microbatch": -1,
    "use_checkpoint": False,
    "ema_rate": "0.9999",
    "fp16_scale_growth": 1e-3,
    "log_interval": 100,
    "save_interval": 5000,
    "resume_checkpoint": "",
}

SAMPLE_FLAGS: dict[str, Any] = {
    "model_path": "",
    "num_ensemble": 5,
    "use_ddim": False,
}

# Flags without a meaning here, with the reason.
IDLE_FLAGS: dict[str, tuple[Any, str]] = {
    "in_ch": (0, "the image's channels and the mask's are known from the data"),
    "gpu_dev": ("0", "Jittor uses the GPU that CUDA_VISIBLE_DEVICES names"),
    "multi_gpu": ("", "one process works on one device; for several, start the script with mpirun -np N"),
    "clip_denoised": (True, "the clean mask is always clipped, as published"),
    "num_samples": (1, "the whole dataset is segmented, as in the published code; --limit takes fewer images"),
    "debug": (False, "a failing command shows its traceback with --traceback"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{in_our_words(message, self._option_string_actions)} (see --help)")


def _parser(description: str, *groups: dict[str, Any]) -> _Parser:
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where a failing command failed")
    for group in groups:
        for name, default in group.items():
            kind = boolean if isinstance(default, bool) else type(default)
            parser.add_argument(f"--{name}", type=kind, default=default, help=f"default: {default!r}")
    for name, (_, reason) in IDLE_FLAGS.items():
        parser.add_argument(f"--{name}", help=f"accepted, has no effect: {reason}")
    return parser


def _with_underscores(argv: Optional[Sequence[str]]) -> list[str]:
    """The words of the command line, `--image-size` written as `--image_size`: our messages use dashes."""
    words = []
    for word in sys.argv[1:] if argv is None else argv:
        name, equals, value = word.partition("=")
        words.append("--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word)
    return words


def _parse(parser: _Parser, argv: Optional[Sequence[str]]) -> dict[str, Any]:
    options = vars(parser.parse_args(_with_underscores(argv)))
    for name, (default, reason) in IDLE_FLAGS.items():
        given = options.pop(name)
        if given is not None and str(given) != str(default):
            print(f"note: --{name} {given} has no effect here: {reason}")
    options["version"] = published_version(options["version"])
    options["precision"] = "fp16" if options.pop("use_fp16") else "fp32"
    options["data_name"] = options["data_name"].lower()
    return options


def train(argv: Optional[Sequence[str]] = None) -> int:
    """`segmentation_train.py`."""
    from medsegdiff.app import train as command

    parser = _parser("Train, with the published flags.", DATA_FLAGS, MODEL_FLAGS, TRAIN_FLAGS)
    parser.add_argument("--steps", type=int, default=0, help="steps to train; default: --lr_anneal_steps, or 100000")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--ema_warmup", type=boolean, default=True, help="False: average slowly from the first step on")
    parser.add_argument("--num_classes", type=int, default=2, help="classes, background included; default: 2")
    parser.add_argument("--cache_dir", default=None, help="where resized images are kept")
    options = _parse(parser, argv)
    resume = options.pop("resume_checkpoint")
    if resume:
        options["out_dir"] = str(_run_folder(Path(resume)))
        print(f"note: --resume_checkpoint continues the run in {options['out_dir']}")
    if options["dpm_solver"]:
        print("note: --dpm_solver has no effect on training: the sampler is chosen when sampling")
    if options["timestep_respacing"]:
        print("note: --timestep_respacing has no effect on training: all steps are trained")
    options["steps"] = options["steps"] or options["lr_anneal_steps"] or 100_000
    return command.train(RunConfig.from_flat(options))


def _run_folder(checkpoint: Path) -> Path:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    folder = folder.parent if (folder / "state.json").is_file() else folder
    if not checkpoint.exists() or not any(folder.glob("step-*/state.json")):
        raise InputError(f"--resume_checkpoint {checkpoint}: no such checkpoint; give a run's folder or step-NNNNNN")
    return folder


def sample(argv: Optional[Sequence[str]] = None) -> int:
    """`segmentation_sample.py`."""
    from medsegdiff.app import sample as command

    # Flags of training are accepted, as the published commands repeat them when sampling.
    parser = _parser("Segment, with the published flags.", DATA_FLAGS, MODEL_FLAGS, TRAIN_FLAGS, SAMPLE_FLAGS)
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise")
    parser.add_argument("--limit", type=int, default=0, help="segment only so many images; 0: all")
    parser.add_argument("--overlay", type=boolean, default=True, help="draw each mask over its image; default: True")
    parser.add_argument("--maps", type=boolean, default=False, help="write standard deviation and entropy too")
    parser.add_argument("--overwrite", type=boolean, default=False, help="replace masks of other weights or options")
    parser.add_argument("--num_classes", type=int, default=2, help="classes, background included; default: 2")
    parser.add_argument("--cache_dir", default=None, help="where resized images are kept")
    options = _parse(parser, argv)
    network = pick(NetworkConfig, options)
    diffusion = pick(DiffusionConfig, options)
    return command.sample(
        sampling=_sampling(options),
        **{name: options[name] for name in ("model_path", "data_dir", "out_dir", "limit", "cache_dir")},
        overlays=options["overlay"],
        maps=options["maps"],
        overwrite=options["overwrite"],
        expected=(network, diffusion),
    )


def _sampling(options: dict[str, Any]) -> SamplingConfig:
    if options["dpm_solver"] and options["use_ddim"]:
        raise InputError("--dpm_solver, --use_ddim: give one of them")
    if options["num_ensemble"] < 1:
        raise InputError(f"--num_ensemble {options['num_ensemble']}: must be at least 1")
    if options["dpm_solver"] and options["timestep_respacing"]:
        print("note: --timestep_respacing has no effect with --dpm_solver, which steps evenly in time")
        options["timestep_respacing"] = ""
    common = SamplingConfig(
        sampler="ddim" if options["use_ddim"] else "ddpm",
        steps=0,
        timestep_respacing=options["timestep_respacing"],
        members=options["num_ensemble"],
        batch_size=max(options["batch_size"], options["num_ensemble"]),
        seed=options["seed"],
        precision=options["precision"],
    )
    # The published code runs its solver with 20 steps and dynamic thresholding.
    return dataclasses.replace(common, sampler="dpm++", steps=20, threshold=0.995) if options["dpm_solver"] else common


def evaluate(argv: Optional[Sequence[str]] = None) -> int:
    """`segmentation_env.py`."""
    from medsegdiff.app import evaluate as command

    parser = _Parser(description="Score predictions, with the published flags.", allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where a failing command failed")
    parser.add_argument("--pred_path", "--inp_pth", default="", help="folder of the predictions")
    parser.add_argument("--gt_path", "--gt_pred", "--out_pth", default="", help="folder of the ground-truth masks")
    options = parser.parse_args(_with_underscores(argv))
    for name in ("pred_path", "gt_path"):
        if not getattr(options, name):
            raise InputError(f"--{name}: missing; give a folder")
    from medsegdiff.evaluation.truth import truth_from_folder

    command.evaluate(options.pred_path, truth_from_folder(Path(options.gt_path)))
    return 0
