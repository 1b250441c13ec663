"""`medsegdiff sample`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from medsegdiff.app.options import Parser, WhichWeights, add_section, check_layout, output_folder
from medsegdiff.base import ranks
from medsegdiff.base.bounds import MOST, bounded, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import is_folder
from medsegdiff.base.screen import counted, tell
from medsegdiff.checkpoints.shipped import DEFAULT, names
from medsegdiff.config.data import DataName
from medsegdiff.config.run import pick
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cases import Case
from medsegdiff.inference.backends import Backend, choose, load_denoiser
from medsegdiff.io.ensembles import IMAGES
from medsegdiff.io.predictions import WRITER, check_id, files_of

SUMMARY = "segment images or a dataset: ensembles, probabilities, uncertainty"


@dataclass(frozen=True)
class SampleOptions:
    """What is segmented, with which network, and what is written.

    Args:
        model_path: a run's folder (its newest checkpoint), a checkpoint step-NNNNNN, a .safetensors file, or a .pt or
            .pkl file of a published network
        trained_as: options that a .pt or .pkl file was trained with, as for train: a YAML file, or isic-published
        backend: what computes the network; auto: Jittor where it is compiled, else ONNX Runtime (onnx)
        data_dir: or a dataset's folder: its test images are segmented
        data_name: the folder's layout; auto: found out
        images: images to segment: files (NIfTI volumes too) or folders of them
        out_dir: folder for the predictions
        weights: averaged weights, or those of the last step
        limit: largest number of images to segment; 0: all
        save_members: write every member, and the conditioning network's own mask, so that evaluate can compare them
        overlay: draw each mask over its image
        maps: write standard deviation and entropy as grey maps, too
        cache_dir: folder for the cache of resized images
        trace: draw each step from noise to mask of these images (names without suffix)
        overwrite: replace masks in `out_dir` of other weights or options; your own files stay
    """

    model_path: str = ""
    trained_as: str = field(default="", metadata={"metavar": "FILE"})
    backend: Backend = "auto"
    data_dir: str = ""
    data_name: DataName = "auto"
    images: Sequence[str] = ()
    out_dir: str = "predictions"
    weights: WhichWeights = "ema"
    limit: int = bounded(0, 0, MOST)
    save_members: bool = False
    overlay: bool = True
    maps: bool = False
    cache_dir: Optional[str] = None
    trace: Sequence[str] = field(default=(), metadata={"metavar": "ID"})
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", action="config", help="YAML file of options; the command line overrides it")
    add_section(parser, SampleOptions)
    add_section(parser, SamplingConfig, "sampling")
    parser.put_first("--model-path", "--images", "--data-dir", "--out-dir", "--members")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    return sample(pick(SampleOptions, vars(options)), pick(SamplingConfig, vars(options)))


def sample(options: SampleOptions, sampling: SamplingConfig, expected: Optional[Mapping[str, Any]] = None) -> int:
    """Segment images with a trained model, which must have been trained with the options `expected`.

    Raises:
        InputError: an option makes no sense, or a file cannot be read or written.
    """
    model_path, data_dir, images = options.model_path, options.data_dir, options.images
    out = output_folder(options.out_dir)
    _check_inputs(data_dir, images)
    check_layout(options.data_name, data_dir)
    if not model_path and expected is None and DEFAULT in names():
        model_path = DEFAULT
        tell(f"no --model-path: {DEFAULT}, the package's network for skin lesions, is used")
    if not model_path:
        raise InputError("--model-path: missing; give the folder of a training run or a checkpoint")
    chosen = choose(options.backend, sampling.precision)
    from medsegdiff.checkpoints.load import is_foreign, load_any

    told = expected if expected and is_foreign(model_path) else {}
    loaded = load_any(Path(model_path), options.weights, options.trained_as, told).weights
    config = loaded.config
    kept = loaded.data.get("split", {}).get("test", ())
    several = config.network.image_channels > 1 and not config.data.colour
    cases = find_inputs(data_dir, images, options.data_name, kept, several)[: options.limit or None]
    _keep_apart(out, cases, bool(data_dir), images)
    for case in cases:
        check_id(case.id)
    for name in options.trace:
        if name not in {case.id for case in cases}:
            raise InputError(f"--trace {name}: no such image among those to segment; the first is {cases[0].id}")
    if sampling.control == "shuffle-noise" and len(cases) < 2:
        raise InputError("--control shuffle-noise: gives an image another's noise; segment at least two")
    if sampling.steps == 1 and not sampling.continuous:
        tell(f"note: {sampling.sampler} with one step evaluates the first timestep only; for one step take dpm++")

    from medsegdiff.base.ownership import Ledger, digest
    from medsegdiff.data.cache import prepare
    from medsegdiff.inference import results

    has = config.flat()
    differing = next((name for name, wanted in (expected or {}).items() if has[name] != wanted), None)
    if differing:
        differs = f"`{differing}` {has[differing]}, not {expected[differing]}"
        raise InputError(f"{loaded.source}: was trained with {differs}; give the options that it was trained with")
    sampling = sampling.resolved(config.diffusion)  # complains of steps that there are not
    used = digest(Path(loaded.source))
    if ranks.rank() == 0:  # now, before anything takes long, and again when the folder is locked
        ledger = Ledger(out, WRITER)
        results.check(ledger, results.settings(sampling, used), [case.id for case in cases], options.overwrite)
    bare = [dataclasses.replace(case, mask=None) for case in cases]  # whatever masks there are, none is needed
    dataset = prepare(bare, cache_dir=options.cache_dir, **config.preparation)

    from medsegdiff.inference.files import Extras
    from medsegdiff.inference.predict import predict
    from medsegdiff.inference.segmenter import BatchSegmenter

    extras = Extras(options.overlay, options.maps, options.save_members, options.trace)
    segmenter = BatchSegmenter(load_denoiser(loaded, chosen, sampling.precision), config.diffusion, sampling)
    source = loaded.source
    del loaded  # the network has the weights
    predict(segmenter, cases, dataset, out, source, extras, used, options.overwrite, kept)
    said = f"segmented {counted(len(cases), 'image')}; the masks lie in {options.out_dir}"
    tell(said, images=len(cases), out_dir=options.out_dir)
    return 0


def _keep_apart(out: Path, cases: Sequence[Case], from_dataset: bool, images: Sequence[str]) -> None:
    """Refuse to write into the inputs' folders, where the next call would take the masks for images.

    Files that were named one by one may lie in `out`, as long as no mask would take their place.

    Raises:
        InputError: an output is an input, by whatever name.
    """
    inputs = [path for case in cases for path in case.files]
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


def _check_inputs(data_dir: str, images: Sequence[str]) -> None:
    if bool(data_dir) == bool(images):
        raise InputError("--data-dir, --images: give one of them")
    if "" in images:
        raise InputError('--images "": is empty; give image files or folders, or . for the working directory')


def find_inputs(
    data_dir: str,
    images: Sequence[str] = (),
    data_name: str = "auto",
    kept: Collection[str] = (),
    several_channels: bool = False,
) -> list[Case]:
    """The images to segment: a dataset's test images, see `layouts.find_test`, or files and folders.

    Raises:
        InputError: there is none, or masks of a dataset are among the files.
    """
    from medsegdiff.data.layouts import find_test, masks_of

    if data_dir:
        return find_test(Path(data_dir), data_name, kept)
    from medsegdiff.data.cases import from_files

    cases = from_files([Path(path) for path in images], several_channels)
    taken = {file for case in cases for file in case.files}
    for folder in filter(is_folder, map(Path, images)):
        for mask in sorted(taken & masks_of(folder))[:1]:
            raise InputError(
                f"`images` {folder}: holds masks, by their place or name, which would be segmented, too, as {mask}; "
                f"give its images alone, or `data_dir` {folder} for its test images"
            )
    return cases
