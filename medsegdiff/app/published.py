"""The three scripts of the published project: its names and flags, our code.

Flags are the options' names, which the public PyTorch code (MIT) gave them, with its defaults; booleans are True or
False.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from medsegdiff.app.options import helps, in_our_words, respelled
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError, spelled
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig, published_version
from medsegdiff.config.run import RunConfig, pick
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.evaluation.metrics import USUAL


def boolean(text: str) -> bool:
    """A published boolean: True or False, also yes, no, 1, 0."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text}: must be True or False")
    return words[text.lower()]


# Published defaults that differ from ours.
_DEFAULTS: dict[str, Any] = {
    "data_name": "ISIC",
    "out_dir": "./results/",
    "batch_size": 1,
    "steps": None,
    "image_size": 64,
    "num_heads": 4,
    "attention_resolutions": "16,8",
    "use_scale_shift_norm": True,
    "learn_sigma": False,
}
# Options of training that published commands repeat when they sample.
_REPEATED = {
    *("out_dir", "batch_size", "seed", "schedule_sampler", "lr", "weight_decay", "lr_anneal_steps", "microbatch"),
    *("use_checkpoint", "ema_rate", "fp16_scale_growth", "log_interval", "save_interval"),
}
_SOLVER_STEPS = 20  # "in [20, 30] can generate quite good samples", says the published code
_TRAINING_ONLY = ("dropout", "cond_dropout", "use_kl", "rescale_learned_sigmas")  # of the network's and the diffusion's

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

    def read(self, argv: Optional[Sequence[str]]) -> argparse.Namespace:
        """The options of a command line, where `--image-size` is `--image_size`: our messages use dashes."""
        return self.parse_args(respelled(sys.argv[1:] if argv is None else argv, "-", "_"))


def _parser(description: str, sections: dict[type, Collection[str]]) -> _Parser:
    """Flags for the named fields of the `sections`, and for what the published scripts alone have."""
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where a failing command failed")
    for section, names in sections.items():
        texts, types = helps(section), typing.get_type_hints(section)
        for f in dataclasses.fields(section):
            if f.name in names:
                kinds, default = (types[f.name], *typing.get_args(types[f.name])), _DEFAULTS.get(f.name, f.default)
                kind = next((kind for kind in kinds if kind in (int, float, bool)), str)
                text = spelled(texts.get(f.name, ""), "--{}".format).replace("%", "%%")
                text += "" if default is None else f" (default: {default!r})"
                parser.add_argument(f"--{f.name}", type=boolean if kind is bool else kind, default=default, help=text)
    parser.add_argument("--resume_checkpoint", default="", help="a run's folder or checkpoint to continue")
    parser.add_argument("--timestep_respacing", default="", help="which steps sampling visits, as 25 or ddim25")
    parser.add_argument("--dpm_solver", type=boolean, default=False, help="sample by DPM-Solver++")
    parser.add_argument("--use_fp16", type=boolean, default=False, help="compute in float16, on a GPU")
    for name, (_, reason) in IDLE_FLAGS.items():
        parser.add_argument(f"--{name}", help=f"accepted, has no effect: {reason}")
    return parser


def _names(section: type, *without: str) -> list[str]:
    return [f.name for f in dataclasses.fields(section) if f.name not in without]


def _parse(parser: _Parser, argv: Optional[Sequence[str]]) -> dict[str, Any]:
    options = vars(parser.read(argv))
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

    sections = {
        kind: _names(kind, "precision") for kind in (DataConfig, TrainingConfig, NetworkConfig, DiffusionConfig)
    }
    parser = _parser("Train, with the published flags.", sections)
    options = _parse(parser, argv)
    if resume := options.pop("resume_checkpoint"):
        options["out_dir"] = str(_run_folder(Path(resume)))
        print(f"note: --resume_checkpoint continues the run in {options['out_dir']}")
    if options["dpm_solver"]:
        print("note: --dpm_solver has no effect on training: the sampler is chosen when sampling")
    if options["timestep_respacing"]:
        print("note: --timestep_respacing has no effect on training: all steps are trained")
    if options["steps"] is None:
        options["steps"] = max(0, options["lr_anneal_steps"]) or 100_000
    return command.train(RunConfig.from_flat(options))


def _run_folder(checkpoint: Path) -> Path:
    from medsegdiff.checkpoints.folder import list_checkpoints
    from medsegdiff.checkpoints.load import is_foreign
    from medsegdiff.checkpoints.state import STATE

    option = f"--resume_checkpoint {checkpoint}"
    if is_foreign(checkpoint):
        raise InputError(f"{option}: training continues from checkpoints of this program alone; give a run's folder")
    given = checkpoint if checkpoint.is_dir() else checkpoint.parent
    folder = given.parent if (given / STATE).is_file() else given
    found = [path for path in list_checkpoints(folder) if (path / STATE).is_file()]
    if not checkpoint.exists() or not found:
        raise InputError(f"{option}: no such checkpoint; give a run's folder or step-NNNNNN")
    if folder != given and found[-1].name != given.name:
        raise InputError(
            f"{option}: a run continues from its newest checkpoint, {found[-1].name}; give the run's folder for that, "
            f"or copy {given.name} into a folder of its own, and give that"
        )
    return folder


def sample(argv: Optional[Sequence[str]] = None) -> int:
    """`segmentation_sample.py`."""
    from medsegdiff.app import sample as command

    data = ("data_name", "data_dir", "cache_dir")
    kinds = {kind: _names(kind) for kind in (NetworkConfig, DiffusionConfig)}
    parser = _parser("Segment, with the published flags.", {DataConfig: data, TrainingConfig: _REPEATED, **kinds})
    parser.set_defaults(diffusion_steps=None)
    parser.add_argument("--model_path", default="", help="a run's folder or a checkpoint")
    parser.add_argument("--num_ensemble", type=int, default=5, help="masks for each image (default: 5)")
    parser.add_argument("--use_ddim", type=boolean, default=False, help="sample by DDIM")
    parser.add_argument("--limit", type=int, default=0, help="segment only so many images; 0: all")
    parser.add_argument("--overlay", type=boolean, default=True, help="draw each mask over its image (default: True)")
    parser.add_argument("--maps", type=boolean, default=False, help="write standard deviation and entropy too")
    parser.add_argument("--overwrite", type=boolean, default=False, help="replace masks of other weights or options")
    options = _parse(parser, argv)
    if not options["data_dir"]:
        raise InputError("--data_dir: missing; give the dataset's folder")
    sampling = _sampling(options)
    options = {name: value for name, value in options.items() if value is not None}
    trained = {**dataclasses.asdict(pick(NetworkConfig, options)), **dataclasses.asdict(pick(DiffusionConfig, options))}
    unknown = (*_TRAINING_ONLY, "diffusion_steps") if options["dpm_solver"] else _TRAINING_ONLY
    names = ("model_path", "data_dir", "out_dir", "cache_dir", "limit", "overlay", "maps", "overwrite")
    wanted = command.SampleOptions(**{name: options[name] for name in names if name in options})
    return command.sample(
        wanted, sampling, expected={name: value for name, value in trained.items() if name not in unknown}
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
    if not options["dpm_solver"]:
        return common
    # The published code gives its solver --diffusion_steps, whatever the model was trained with; it thresholds so.
    steps = options.pop("diffusion_steps")
    steps = _SOLVER_STEPS if steps is None else steps
    check_bounds("--diffusion_steps", steps, 1, 100_000)
    return dataclasses.replace(common, sampler="dpm++", steps=steps, threshold=0.995)


def evaluate(argv: Optional[Sequence[str]] = None) -> int:
    """`segmentation_env.py`."""
    from medsegdiff.app import evaluate as command

    parser = _Parser(description="Score predictions, with the published flags.", allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where a failing command failed")
    parser.add_argument("--pred_path", "--inp_pth", default="", help="folder of the predictions")
    parser.add_argument("--gt_path", "--gt_pred", "--out_pth", default="", help="folder of the ground-truth masks")
    options = parser.read(argv)
    for name in ("pred_path", "gt_path"):
        if not getattr(options, name):
            raise InputError(f"--{name}: missing; give a folder")
    given = command.comparison(Path(options.pred_path), options.gt_path, None, "", USUAL)
    command.evaluate(options.pred_path, **given)
    return 0
