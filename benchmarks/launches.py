"""How many operations a training step executes on a GPU: by plain expressions, and with the fused kernels.

    python -m benchmarks.launches [--width 32] [--size 64] [--batch 1]

Runs on a CPU, where the fused kernels are emulated, and counts what Jittor's profiler does. On a GPU each is a launch
at least. The same step is computed by both: its losses and norms are printed, and must agree. The first run compiles
two hundred kernels.
"""

from __future__ import annotations

import argparse
from collections import Counter

from benchmarks.emulated import on_a_gpu, on_a_gpu_plainly
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.runtime.backend import jt
from medsegdiff.training.dry_run import noise_batch
from medsegdiff.training.trainer import StepResult, Trainer


def main() -> None:
    """Count both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32, help="which the count does not depend on")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    network = NetworkConfig(image_size=options.size, num_channels=options.width)
    config = RunConfig(network=network, training=TrainingConfig(batch_size=options.batch))
    for name, device in (("plain expressions", on_a_gpu_plainly), ("fused kernels", on_a_gpu)):
        with device():
            counts, result = launches(config)
        norms = ", ".join(f"{name} {value:.5g}" for name, value in result.norms.items())
        print(f"{name}: {sum(counts.values())} operations; loss {result.total:.6f}, {norms}")
        for kind, count in counts.most_common(12):
            print(f"{count:8} {kind}", flush=True)


def launches(config: RunConfig) -> tuple[Counter[str], StepResult]:
    """What the second training step executes, by kind of operation, and what it finds."""
    trainer = Trainer(config)
    trainer.train_step(noise_batch(config, 0))
    with jt.profile_scope() as report:
        result = trainer.train_step(noise_batch(config, 1))
    header, *lines = report
    counts: Counter[str] = Counter()
    for line in lines:
        counts[line[header.index("Name")].split("_hash")[0][:60]] += int(line[header.index("Count")])
    return counts, result


if __name__ == "__main__":
    main()
