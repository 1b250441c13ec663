"""`medsegdiff sample`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

from medsegdiff.app.options import Parser, add_section, output_folder
from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.run import pick
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cases import Case
from medsegdiff.io.ensembles import IMAGES
from medsegdiff.io.predictions import WRITER, check_id, files_of
from medsegdiff.kernels.precision import check

SUMMARY = "segment images or a dataset: ensembles, probabilities, uncertainty"


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
    parser.add_argument(
        "--weights", type=Literal["ema", "model"], default="ema", help="averaged weights, or those of the last step"
    )
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
        "--overlay", type=bool, nargs="?", const=True, default=True, help="draw each mask over its image"
    )
    parser.add_argument(
        "--maps",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="write standard deviation and entropy as grey maps too, besides the probability",
    )
    parser.add_argument("--cache-dir", type=Optional[str], default=None, help="where resized images are kept")
    parser.add_argument(
        "--trace",
        type=str,
        nargs="*",
        default=[],
        metavar="ID",
        help="draw each step from noise to mask of these images, named without suffix",
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="replace what was sampled into --out-dir with other weights or options; files of yours stay",
    )
    add_section(parser, SamplingConfig, "sampling")
    parser.put_first("--model-path", "--images", "--data-dir", "--out-dir", "--members")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    values = vars(options)
    return sample(
        sampling=pick(SamplingConfig, values),
        **{name: values[name] for name in ("model_path", "data_dir", "out_dir", "images", "weights", "limit")},
        save_members=options.save_members,
        overlays=options.overlay,
        maps=options.maps,
        traces=options.trace,
        cache_dir=options.cache_dir,
        overwrite=options.overwrite,
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
    overlays: bool = True,
    maps: bool = False,
    traces: Sequence[str] = (),
    cache_dir: Optional[str] = None,
    overwrite: bool = False,
    expected: Optional[Mapping[str, Any]] = None,
) -> int:
    """Segment images with a trained model.

    Args:
        sampling: how to sample
        model_path, data_dir, out_dir, images, weights, limit, cache_dir, overwrite: the options
        save_members, overlays, maps, traces: see `inference.files.Extras`
        expected: options that the model must have been trained with
    """
    if not model_path:
        raise InputError("--model-path: missing; give the folder of a training run or a checkpoint")
    if weights not in ("ema", "model"):
        raise InputError(f"--weights {weights}: must be ema or model")
    if limit < 0:
        raise InputError(f"--limit {limit}: must be at least 0 (all)")
    out = output_folder(out_dir)
    cases = find_inputs(data_dir, images)[: limit or None]
    _keep_apart(out, cases, bool(data_dir), images)
    for case in cases:
        check_id(case.id)
    for name in traces:
        if name not in {case.id for case in cases}:
            raise InputError(f"--trace {name}: no such image among those to segment; the first is {cases[0].id}")
    if sampling.control == "shuffle-noise" and len(cases) < 2:
        raise InputError("--control shuffle-noise: gives an image another's noise; segment at least two")
    if sampling.steps == 1 and not sampling.continuous:
        print(f"note: {sampling.sampler} with one step asks about the first timestep alone; dpm++ is made for that")

    from medsegdiff.base.ownership import Ledger, digest
    from medsegdiff.checkpoints.folder import load_weights
    from medsegdiff.data.cache import prepare
    from medsegdiff.inference import results

    check(sampling.precision)

    loaded = load_weights(Path(model_path), weights)
    config = loaded.config
    has = config.flat()
    differing = next((name for name, wanted in (expected or {}).items() if has[name] != wanted), None)
    if differing:
        differs = f"`{differing}` {has[differing]}, not {expected[differing]}"
        raise InputError(f"{loaded.source}: was trained with {differs}; give the options that it was trained with")
    sampling = sampling.resolved(config.diffusion)  # complains of steps that there are not
    used = digest(Path(loaded.source))
    if ranks.rank() == 0:  # now, before anything takes long, and again when the folder is locked
        ledger = Ledger(out, WRITER)
        results.check(ledger, results.settings(sampling, used), [case.id for case in cases], overwrite)
    cache = Path(cache_dir) if cache_dir else None
    dataset = prepare(
        [dataclasses.replace(case, mask=None) for case in cases],  # whatever masks there are, none is needed
        config.network.image_size,
        cache,
        config.data.mask_resize,
        num_classes=config.network.num_classes,
    )

    from medsegdiff.inference.files import Extras
    from medsegdiff.inference.jittor_denoiser import load_denoiser
    from medsegdiff.inference.predict import predict
    from medsegdiff.inference.segmenter import BatchSegmenter

    extras = Extras(overlays, maps, save_members, traces)
    segmenter = BatchSegmenter(load_denoiser(loaded, sampling.precision), config.diffusion, sampling)
    source = loaded.source
    del loaded  # the network has the weights
    predict(segmenter, cases, dataset, out, source, extras, used, overwrite)
    tell(f"segmented {len(cases)} images; the masks lie in {out_dir}", images=len(cases), out_dir=out_dir)
    return 0


def _keep_apart(out: Path, cases: Sequence[Case], from_dataset: bool, images: Sequence[str]) -> None:
    """Refuse to write among the inputs, where the next call would take the masks for images.

    Files that were named one by one may lie in `out`, as long as no mask would take their place.

    Raises:
        InputError: an output is an input, by whatever name.
    """
    inputs = [path for case in cases for path in (case.image, case.mask) if path]
    folders = {path.parent for path in inputs} if from_dataset else {Path(name) for name in images}
    for folder in folders:
        if out.is_dir() and folder.is_dir() and out.samefile(folder):
            raise InputError(f"--out-dir {out}: is a folder of images to segment; give another")
    taken = {(path.stat().st_dev, path.stat().st_ino): path for path in inputs}
    for name in [IMAGES, "run.json", *files_of(out, {case.id for case in cases})]:
        with contextlib.suppress(OSError):  # not there
            found = (out / name).stat()
            if (found.st_dev, found.st_ino) in taken:
                path = taken[found.st_dev, found.st_ino]
                raise InputError(f"{out / name}: would be written, and is the image {path}; give another --out-dir")


def find_inputs(data_dir: str, images: Sequence[str]) -> list[Case]:
    """The images to segment: a dataset's test images, or files and folders."""
    if bool(data_dir) == bool(images):
        raise InputError("--data-dir, --images: give one of them")
    if "" in images:
        raise InputError('--images "": is empty; give image files or folders, or . for the working directory')
    if data_dir:
        from medsegdiff.data.layouts import isic

        return isic.find(Path(data_dir), "test", need_masks=False)
    from medsegdiff.data.cases import from_files

    return from_files([Path(path) for path in images])
