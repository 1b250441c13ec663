"""`medsegdiff sample`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from medsegdiff.app.options import Parser, add_section
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import make_folder
from medsegdiff.config.run import difference, pick
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cases import Case
from medsegdiff.io.predictions import check_id
from medsegdiff.kernels.precision import check

SUMMARY = "segment a dataset, folders or single files: ensembles, probabilities, uncertainty"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", action="config", help="YAML file of options; the command line overrides it")
    parser.add_argument(
        "--model-path",
        type=str,
        default="",
        help="a run's folder (its newest checkpoint), a checkpoint step-NNNNNN, or a .safetensors file",
    )
    parser.add_argument("--data-dir", type=str, default="", help="a dataset's folder, whose test images are segmented")
    parser.add_argument("--images", type=str, nargs="*", default=[], help="or image files, or folders of image files")
    parser.add_argument("--out-dir", type=str, default="predictions", help="folder for the predictions")
    parser.add_argument("--weights", type=str, default="ema", help='"ema", the averaged weights, or "model", the raw')
    parser.add_argument("--limit", type=int, default=0, help="segment only so many images; 0: all")
    parser.add_argument(
        "--save-members",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="keep every member, and the conditioning network's own mask, for evaluate to compare",
    )
    parser.add_argument(
        "--overlay", type=bool, nargs="?", const=True, default=False, help="draw each mask over its image"
    )
    parser.add_argument("--cache-dir", type=Optional[str], default=None, help="where resized images are kept")
    parser.add_argument(
        "--trace", type=str, nargs="*", default=[], help="ids of images whose way from noise to mask is drawn"
    )
    add_section(parser, SamplingConfig, "sampling")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    values = vars(options)
    return sample(
        sampling=pick(SamplingConfig, values),
        **{name: values[name] for name in ("model_path", "data_dir", "out_dir", "images", "weights", "limit")},
        save_members=options.save_members,
        overlays=options.overlay,
        traces=options.trace,
        cache_dir=options.cache_dir,
    )


def sample(
    sampling: SamplingConfig,
    model_path: str,
    data_dir: str,
    out_dir: str,
    images: Sequence[str] = (),
    weights: str = "ema",
    limit: int = 0,
    save_members: bool = False,
    overlays: bool = False,
    traces: Sequence[str] = (),
    cache_dir: Optional[str] = None,
    expected: Any = None,
) -> int:
    """Segment images with a trained model.

    Args:
        sampling: how to sample
        model_path, data_dir, out_dir, images, weights, limit, cache_dir: the options
        save_members, overlays, traces: see `inference.predict.Extras`
        expected: (network, diffusion) configurations that the checkpoint must have, or None
    """
    if not model_path:
        raise InputError("--model-path: missing; give the folder of a training run or a checkpoint")
    if weights not in ("ema", "model"):
        raise InputError(f"--weights {weights}: must be ema or model")
    if limit < 0:
        raise InputError(f"--limit {limit}: must be at least 0 (all)")
    cases = find_inputs(data_dir, images)[: limit or None]
    for case in cases:
        check_id(case.id)
    for name in traces:
        if name not in {case.id for case in cases}:
            raise InputError(f"--trace {name}: no such image among those to segment; the first is {cases[0].id}")
    if sampling.control == "shuffle-noise" and len(cases) < 2:
        raise InputError("--control shuffle-noise: gives an image another's noise; segment at least two")
    if sampling.steps == 1 and not sampling.continuous:
        print(f"note: {sampling.sampler} with one step asks about the first timestep alone; dpm++ is made for that")

    from medsegdiff.checkpoints.folder import load_weights
    from medsegdiff.data.cache import prepare

    check(sampling.precision)

    loaded = load_weights(Path(model_path), weights)
    config = loaded.config
    for wanted, has in zip(expected or (), (config.network, config.diffusion)):
        differs = difference(_for_sampling(wanted), _for_sampling(has))
        if differs:
            raise InputError(f"{loaded.source}: was trained with {differs}; give the options that it was trained with")
    sampling = sampling.resolved(config.diffusion)  # complains of steps that there are not
    cache = Path(cache_dir) if cache_dir else None
    dataset = prepare(
        [dataclasses.replace(case, mask=None) for case in cases],  # whatever masks there are, none is needed
        config.network.image_size,
        cache,
        config.data.mask_resize,
        num_classes=config.network.num_classes,
    )
    out = make_folder(Path(out_dir))

    from medsegdiff.inference.predict import Extras, build_segmenter, predict

    extras = Extras(save_members, overlays, traces)
    segmenter, source = build_segmenter(loaded, sampling), loaded.source
    del loaded  # the network has the weights
    predict(segmenter, cases, dataset, out, source, extras)
    print(f"segmented {len(cases)} images; the masks lie in {out_dir}")
    return 0


def _for_sampling(section: Any) -> Any:
    """The section with the options that matter in training alone at their defaults."""
    training_only = ("dropout", "use_kl", "rescale_learned_sigmas")
    defaults = {f.name: f.default for f in dataclasses.fields(section) if f.name in training_only}
    return dataclasses.replace(section, **defaults)


def find_inputs(data_dir: str, images: Sequence[str]) -> list[Case]:
    """The images to segment: a dataset's test images, or files and folders."""
    if bool(data_dir) == bool(images):
        raise InputError("--data-dir, --images: give one of them")
    if data_dir:
        from medsegdiff.data.layouts.isic import find_cases

        return find_cases(Path(data_dir), "test", require_masks=False)
    from medsegdiff.data.cases import from_files

    return from_files([Path(path) for path in images])
