"""`medsegdiff data`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Literal, NamedTuple

from medsegdiff.app import check
from medsegdiff.app.options import Parser, add_section
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.data import DataConfig
from medsegdiff.config.run import RunConfig

SUMMARY = "generate images; download, check, prepare datasets; clear the cache"


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
    parser.option("--out-dir", "", "folder to write, in the ISIC 2016 layout")
    parser.option("--train", 60, "images to train on")
    parser.option("--test", 12, "images to test on")
    parser.option("--size", 192, "side of the images in pixels")
    parser.option("--seed", 0, "seed of the images")
    parser.option("--num-classes", 2, "2: skin and lesion; 3: also the lesion's dark core")


def _phantom(options: Any) -> int:
    if not options.out_dir:
        raise InputError("--out-dir: missing; give the folder to write")
    for option, least, most in (("train", 1, 100_000), ("test", 1, 100_000), ("size", 32, 4096)):
        check_bounds(f"--{option}", getattr(options, option), least, most)
    from medsegdiff.data.phantom import write_isic

    write_isic(Path(options.out_dir), options.train, options.test, options.size, options.seed, options.num_classes)
    said = f"wrote {options.train} training and {options.test} test images to {options.out_dir}"
    tell(said, out_dir=options.out_dir, train=options.train, test=options.test)
    return 0


def _configure_download(parser: Parser) -> None:
    from medsegdiff.data.download import DATASETS

    parser.add_argument("name", type=Literal[tuple(DATASETS)], metavar="NAME", help=f"one of {', '.join(DATASETS)}")
    parser.option("--out-dir", "", "folder to write")
    parser.option("--base-url", None, "address of a mirror; default: where the owners publish the data")


def _download(options: Any) -> int:
    if not options.out_dir:
        raise InputError("--out-dir: missing; give the folder to write")
    from medsegdiff.data.download import download

    folders = list(download(options.name, Path(options.out_dir), options.base_url))
    tell("\n".join(f"{folder}: complete" for folder in folders), folders=folders)
    return 0


def _configure_prepare(parser: Parser) -> None:
    parser.option("--part", "train", "which images", Literal["train", "test"])
    parser.option("--image-size", 256, "side of the network's input in pixels")
    parser.option("--num-classes", 2, "classes, background included")
    skip = [f.name for f in dataclasses.fields(DataConfig) if f.name.startswith("augment")]
    add_section(parser, DataConfig, "data", skip)


def _prepare(options: Any) -> int:
    from medsegdiff.data.cache import ENTRIES, default_cache, prepare
    from medsegdiff.data.foreground import describe
    from medsegdiff.data.layouts import find_test
    from medsegdiff.training.images import find_images

    images = find_images(RunConfig.from_flat(vars(options)))
    config, cases = images.config, images.cases
    if options.part == "test":
        cases = find_test(Path(config.data.data_dir), config.data.data_name, images.split.test)
    cache = Path(options.cache_dir) if options.cache_dir else default_cache()
    dataset = prepare(cases, cache_dir=cache, **config.preparation)
    kind = "images with masks" if dataset.has_masks else "images without masks"
    if dataset.has_masks and dataset.num_classes > 2:
        kind += f" of {dataset.num_classes} classes"
    size = config.network.image_size
    print(f"{len(dataset)} {kind}, {size} x {size}")
    if dataset.has_masks:
        print("\n".join(describe(dataset.shares)))
    print(f"fingerprint {dataset.fingerprint}")
    facts = {"cases": len(dataset), "fingerprint": dataset.fingerprint, "folder": cache / ENTRIES}
    tell(f"written to {cache / ENTRIES}", **facts)
    return 0


def _configure_cache(parser: Parser) -> None:
    parser.option("--list", False, "list the cache")
    parser.option("--clear", False, "remove everything in it")
    parser.option("--cache-dir", None, "default: the user's cache folder")


def _cache(options: Any) -> int:
    if options.list == options.clear:
        raise InputError("--list, --clear: give one of them")
    from medsegdiff.data.cache import default_cache
    from medsegdiff.data.stock import clear, listing

    folder = Path(options.cache_dir) if options.cache_dir else default_cache()
    if options.clear:
        removed = clear(folder)
        tell(f"removed {removed / 2**20:,.1f} MiB from {folder}", removed_bytes=removed, folder=folder)
        return 0
    stock = listing(folder)
    for line in stock.lines:
        print(line)
    said = f"{stock.entries} cases, {stock.size / 2**20:,.1f} MiB in {folder}"
    tell(said, cases=stock.entries, bytes=stock.size, folder=folder)
    return 0


ACTIONS = {
    "phantom": Action("write generated images in the ISIC 2016 layout", _configure_phantom, _phantom),
    "download": Action("fetch a public dataset from its owners and unpack it", _configure_download, _download),
    "check": Action("open every file of a dataset and say what is wrong or unlikely", check.configure, check.run),
    "prepare": Action("decode and resize a dataset into the array cache", _configure_prepare, _prepare),
    "cache": Action("list or clear the cache of prepared datasets", _configure_cache, _cache),
}
