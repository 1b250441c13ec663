"""`medsegdiff data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Literal, NamedTuple, Optional

from medsegdiff.app import check
from medsegdiff.app.options import Parser
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.data import MaskResize

SUMMARY = "generate images; fetch, check and prepare datasets"


class Action(NamedTuple):
    """What `medsegdiff data NAME` does."""

    summary: str
    configure: Callable[[Parser], None]
    run: Callable[[Any], int]


def configure(parser: Parser) -> None:
    """Add the actions with their options."""
    actions = parser.add_subcommands(dest="action", required=False, title="actions", metavar="ACTION")
    for name, action in ACTIONS.items():
        described = Parser(description=action.summary[0].upper() + action.summary[1:] + ".")
        action.configure(described)
        actions.add_subcommand(name, described, help=action.summary)


def run(options: Any) -> int:
    """Run the chosen action; returns the exit code."""
    if options.action is None:
        raise InputError(f"data: no action given; there are {', '.join(ACTIONS)}")
    return ACTIONS[options.action].run(options[options.action])


def _configure_phantom(parser: Parser) -> None:
    parser.add_argument("--out-dir", type=str, default="", help="folder to write, in the ISIC 2016 layout")
    parser.add_argument("--train", type=int, default=60, help="images to train on")
    parser.add_argument("--test", type=int, default=12, help="images to test on")
    parser.add_argument("--size", type=int, default=192, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images")
    parser.add_argument(
        "--num-classes", type=int, default=2, help="2: skin and lesion; 3: the masks tell the lesion's dark core, too"
    )


def _phantom(options: Any) -> int:
    if not options.out_dir:
        raise InputError("--out-dir: missing; give the folder to write")
    for option, least, most in (("train", 1, 100_000), ("test", 1, 100_000), ("size", 32, 4096)):
        check_bounds(f"--{option}", getattr(options, option), least, most)
    from medsegdiff.data.phantom import write_isic

    write_isic(Path(options.out_dir), options.train, options.test, options.size, options.seed, options.num_classes)
    said = f"wrote {options.train} training and {options.test} test images; they lie in {options.out_dir}"
    tell(said, out_dir=options.out_dir, train=options.train, test=options.test)
    return 0


def _configure_download(parser: Parser) -> None:
    from medsegdiff.data.download import DATASETS

    parser.add_argument("name", type=Literal[tuple(DATASETS)], help=f"the dataset: {', '.join(DATASETS)}")
    parser.add_argument("--out-dir", type=str, default="", help="folder to write")
    parser.add_argument(
        "--base-url", type=Optional[str], default=None, help="of a mirror; by default where the owners publish the data"
    )


def _download(options: Any) -> int:
    if not options.out_dir:
        raise InputError("--out-dir: missing; give the folder to write")
    from medsegdiff.data.download import download

    print(
        "\n".join(f"{folder}: complete" for folder in download(options.name, Path(options.out_dir), options.base_url))
    )
    return 0


def _configure_prepare(parser: Parser) -> None:
    parser.add_argument("--data-dir", type=str, default="", help="the dataset's folder")
    parser.add_argument("--image-size", type=int, default=256, help="side of the network's input in pixels")
    parser.add_argument("--split", type=Literal["train", "test"], default="train", help="which images")
    parser.add_argument(
        "--mask-resize",
        type=MaskResize,
        default="bilinear",
        help="how masks are resized: bilinear (then > 0, as published) or by the nearest pixel",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        default=2,
        help="classes, background included; above 2 the masks hold class indices and are resized by the nearest pixel",
    )
    parser.add_argument(
        "--cache-dir", type=Optional[str], default=None, help="where the arrays go; by default the user's cache folder"
    )


def _prepare(options: Any) -> int:
    if not options.data_dir:
        raise InputError("--data-dir: missing; give the dataset's folder")
    from medsegdiff.data.cache import default_cache, prepare
    from medsegdiff.data.foreground import describe
    from medsegdiff.data.layouts import isic

    # Training needs every mask; of test images those without one are segmented all the same.
    cases = isic.find(Path(options.data_dir), options.split, need_masks=options.split == "train")
    cache = Path(options.cache_dir) if options.cache_dir else default_cache()
    dataset = prepare(cases, options.image_size, cache, options.mask_resize, num_classes=options.num_classes)
    kind = "images with masks" if dataset.masks is not None else "images without masks"
    if dataset.masks is not None and dataset.num_classes > 2:
        kind += f" of {dataset.num_classes} classes"
    print(f"{len(dataset)} {kind}, {options.image_size} x {options.image_size}")
    if dataset.masks is not None:
        print("\n".join(describe(dataset.masks, dataset.num_classes)))
    print(f"fingerprint {dataset.fingerprint}")
    print(f"they lie in {cache / 'datasets' / dataset.fingerprint}")
    return 0


ACTIONS = {
    "phantom": Action("write generated images in the ISIC 2016 layout", _configure_phantom, _phantom),
    "download": Action("fetch a public dataset from its owners and unpack it", _configure_download, _download),
    "check": Action("open every file of a dataset and say what is wrong or unlikely", check.configure, check.run),
    "prepare": Action("decode and resize a dataset into the array cache", _configure_prepare, _prepare),
}
