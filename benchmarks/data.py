"""What loading costs: batches beside training steps, and an epoch from the cache beside reading the files each time.

    python -m benchmarks.data --data-dir DIR [--image-size 64] [--batch-size 8] [--width 128] [--out FILE.json]

A step of the network is measured on noise, as `medsegdiff train --dry-run` does. An epoch reads every slice once, in
shuffled order; from the files, each slice costs reading its case, which is measured on some cases and multiplied.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medsegdiff.base import machine
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batches
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.training.images import find_images, open_images


def main() -> None:
    """Measure, print, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--width", type=int, default=128, help="of the network; 0: leave its steps out")
    parser.add_argument("--rounds", type=int, default=50, help="batches that are loaded")
    parser.add_argument("--cases", type=int, default=3, help="cases that are read from their files")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        options_of_run = {"data_dir": options.data_dir, "cache_dir": cache, "out_dir": f"{cache}/run"}
        flat = {**options_of_run, "image_size": options.image_size, "batch_size": options.batch_size}
        if options.width:
            flat["num_channels"] = options.width
        found = measure(RunConfig.from_flat(flat), options.rounds, options.cases, bool(options.width))
    for name, value in found.items():
        print(f"{name:32}{value:,.4g}" if isinstance(value, float) else f"{name:32}{value}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


def measure(config: RunConfig, rounds: int, cases: int, with_steps: bool) -> dict[str, Any]:
    """The numbers, in seconds and bytes."""
    images = find_images(config)
    config = images.config
    preparing, (dataset, _) = _timed(lambda: open_images(images))
    batch_size = config.training.batch_size
    plain, augmented = (Batches(dataset, batch_size, 0, augment, **config.data.variants) for augment in (False, True))
    for step in range(-(-len(dataset) // batch_size)):  # every file's checksum is compared when it is first read
        _ = plain[step]
    loading = {name: _median(batches, rounds) for name, batches in (("plain", plain), ("augmented", augmented))}
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
        "a batch": loading["plain"],
        "a batch, augmented": loading["augmented"],
        "an epoch, cached": loading["plain"] * len(dataset) / batch_size,
        "an epoch, reading files": each * len(dataset),
        "bytes an epoch, cached": sum(path.stat().st_size for path in entries),
        "bytes an epoch, reading files": int(each_bytes * len(dataset)),
    }
    if with_steps:
        from medsegdiff.training.dry_run import TIMED, WARM_UP, noise_batch
        from medsegdiff.training.trainer import Trainer

        trainer = Trainer(config)
        seconds = [
            _timed(lambda step=step: trainer.train_step(noise_batch(config, step)))[0]
            for step in range(WARM_UP + TIMED)
        ]
        found["a training step"] = statistics.median(seconds[WARM_UP:])
        found["share of loading"] = loading["augmented"] / found["a training step"]
    return found


def _median(batches: Batches, rounds: int) -> float:
    return statistics.median(_timed(lambda step=step: batches[step])[0] for step in range(rounds))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


if __name__ == "__main__":
    main()
