"""What loading costs: batches compared with training steps, an epoch from the cache with reading the files each time.

    OMP_NUM_THREADS=1 python -m benchmarks.data --data-dir DIR [--image-size 64] [--batch-size 8] [--widths 32 128]

Seconds are of processor time, so that other work on the machine matters little; preparing takes seconds of the clock.
A step of the network is measured on noise, as `medsegdiff train --dry-run` does. "strongly" is the augmentation that
the network of the package was trained with. An epoch reads every slice once, in shuffled order; from the files, each
slice costs reading its case, which is measured on some cases and multiplied.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.base import machine
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batches
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.training.images import find_images, open_images

RECIPE = {"strength": 0.5, "hair": 0.2, "stickers": 0.2}  # logs/isic/config.yaml


def main() -> None:
    """Measure, print, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--widths", type=int, nargs="*", default=[32, 128], help="of networks whose steps are measured")
    parser.add_argument("--rounds", type=int, default=50, help="batches that are loaded")
    parser.add_argument("--cases", type=int, default=3, help="cases that are read from their files")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        options_of_run = {"data_dir": options.data_dir, "cache_dir": cache, "out_dir": f"{cache}/run"}
        flat = {**options_of_run, "image_size": options.image_size, "batch_size": options.batch_size}
        found = measure(RunConfig.from_flat(flat), options.rounds, options.cases, options.widths)
    for name, value in found.items():
        print(f"{name:32}{value:,.4g}" if isinstance(value, float) else f"{name:32}{value}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


def measure(config: RunConfig, rounds: int, cases: int, widths: Sequence[int]) -> dict[str, Any]:
    """The numbers, in seconds and bytes."""
    begun = time.perf_counter()
    images = find_images(config)
    config = images.config
    dataset, _ = open_images(images)
    preparing, batch_size = time.perf_counter() - begun, config.training.batch_size
    usual = config.data.variants
    strong = {**usual, **(RECIPE if config.data.colour else {"strength": RECIPE["strength"]})}
    wanted: dict[str, dict[str, Any]] = {"": {}, ", augmented": {"augmented": True, **usual}}
    wanted[", strongly augmented"] = {"augmented": True, **strong}
    batches = {name: Batches(dataset, batch_size, 0, **given) for name, given in wanted.items()}
    for step in range(-(-len(dataset) // batch_size)):  # every file's checksum is compared when it is first read
        _ = batches[""][step]
    loading = {f"a batch{name}": _median(some, rounds) for name, some in batches.items()}
    some = images.cases[:: max(1, len(images.cases) // cases)][:cases]
    slices, took, read, classes = 0, 0.0, 0, config.network.num_classes
    for case in some:
        seconds, source = _timed(lambda case=case: read_source(case, config.spec))
        more, _ = _timed(lambda case=case, source=source: read_classes(case, config.spec, classes, source))
        slices, took = slices + len(source.values), took + seconds + more
        read += sum(path.stat().st_size for path in case.files)
    entries = Path(config.data.cache_dir).rglob("*.safetensors")
    each, each_bytes = took / len(some), read / len(some)
    found: dict[str, Any] = {
        "processor": machine.cpu().model,
        "cases": len(images.cases),
        "slices": len(dataset),
        "preparing": preparing,
        **loading,
        "an epoch, cached": loading["a batch"] * len(dataset) / batch_size,
        "an epoch, reading files": each * len(dataset),
        "bytes an epoch, cached": sum(path.stat().st_size for path in entries),
        "bytes an epoch, reading files": int(each_bytes * len(dataset)),
    }
    for width in widths:
        network = dataclasses.replace(config.network, num_channels=width)
        each = _step(dataclasses.replace(config, network=network))
        found[f"a step of width {width}"] = each
        found[f"share of loading, width {width}"] = loading["a batch, strongly augmented"] / each
    return found


def _step(config: RunConfig) -> float:
    from medsegdiff.training.dry_run import TIMED, WARM_UP, noise_batch
    from medsegdiff.training.trainer import Trainer

    trainer = Trainer(config)
    batches = [noise_batch(config, step) for step in range(WARM_UP + TIMED)]
    return statistics.median([_timed(lambda batch=batch: trainer.train_step(batch))[0] for batch in batches][WARM_UP:])


def _median(batches: Batches, rounds: int) -> float:
    return statistics.median(_timed(lambda step=step: batches[step])[0] for step in range(rounds))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


if __name__ == "__main__":
    main()
