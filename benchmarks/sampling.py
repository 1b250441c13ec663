"""Seconds for a finished image, an ensemble of 5: the published method of sampling and ours, side by side.

    python -m benchmarks.sampling --model-path RUN --data-dir DIR [--rounds 3] [--dice-images 20]

Same weights, same machine, one run; the methods take turns, each time is the median of the rounds. From one method to
the next a single cause changes. The published method is run by this package's own network and kernels, so the ratio
says nothing of the frameworks. Then the Dice of both ends over more images, written to a CSV file one by one: what it
already holds is not computed again, so an interrupted run is continued. `--rounds 0` compares the Dice alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from benchmarks.records import Scores
from benchmarks.trained import Trained
from medsegdiff.base.randomness import generator
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion import samplers
from medsegdiff.masks.statistics import summarise

MEMBERS = 5


def one_by_one(trained: Trained, sampling: SamplingConfig, images: int, encode_each_step: bool) -> list[np.ndarray]:
    """The members (5, 1, S, S) of each image, sampled alone at batch 1, the image encoded at each step or once."""
    segmenter = trained.segmenter(sampling)
    results = []
    for index in range(images):
        image = trained.dataset.image(index)[None]
        members = []
        for member in range(MEMBERS):
            condition = segmenter.denoiser.encode(image)
            states = segmenter.states(condition, [trained.dataset.ids[index]], [member])
            if encode_each_step:
                states = _encoding_each_step(trained, sampling, image, index, member)
            members.append(np.clip(samplers.final(states).x[0], 0, 1))
        results.append(np.stack(members))
    return results


def _encoding_each_step(
    trained: Trained, sampling: SamplingConfig, image: np.ndarray, index: int, member: int
) -> Iterator[samplers.State]:
    segmenter = trained.segmenter(sampling)
    denoiser = segmenter.denoiser

    def denoise(x: np.ndarray, t: float) -> samplers.Output:
        return denoiser.denoise(x, t, denoiser.encode(image))

    def noise(draw: int) -> np.ndarray:
        stream = generator(sampling.seed, "mask", trained.dataset.ids[index], member, draw)
        return stream.standard_normal((1, 1, *image.shape[2:]), np.float32)

    return samplers.ddpm(denoise, segmenter.diffusion, noise)


def main(argv: Sequence[str] | None = None) -> None:
    """Time the methods in turn, compare their masks and their Dice, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="of timing")
    parser.add_argument("--dice-images", type=int, default=20, help="images that the Dice is taken over")
    parser.add_argument("--dice", type=Path, default=Path("docs/sampling/dice.csv"), help="the Dice of every image")
    parser.add_argument("--out", type=Path, help="write the seconds here, as JSON")
    options = parser.parse_args(argv)
    scores = Scores(options.dice)
    trained = Trained(options.model_path, options.data_dir, options.dice_images)
    diffusion = trained.weights.config.diffusion
    ours = SamplingConfig(members=MEMBERS).resolved(diffusion)
    published = dataclasses.replace(ours, sampler="ddpm", steps=diffusion.diffusion_steps)
    if options.rounds:
        seconds = measure_seconds(trained, published, ours, options.rounds)
        medians = {name: float(np.median(times)) for name, times in seconds.items()}
        print(_table(medians))
        if options.out:
            content = {"seconds": seconds, "medians": medians}
            options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    # The masks of the published method are those of its batched form, which is faster to ask.
    before, after = (scores.complete(trained, sampling) for sampling in (published, ours))
    points = summarise([100 * (after[name] - before[name]) for name in before])
    print(
        f"Dice over {len(before)} images: published {100 * np.mean(list(before.values())):.2f}, "
        f"ours {100 * np.mean(list(after.values())):.2f}; difference {points.mean:+.2f} points "
        f"(95 % interval {points.low:+.2f} to {points.high:+.2f})"
    )


def measure_seconds(
    trained: Trained, slow: SamplingConfig, ours: SamplingConfig, rounds: int
) -> dict[str, list[float]]:
    """Seconds an image of every round, by method; from one to the next, `slow` to `ours`, a single thing changes."""
    group = max(1, ours.batch_size // MEMBERS)
    methods: dict[str, tuple[int, Callable[[], Sequence[np.ndarray]]]] = {
        f"published: {slow.steps} ddpm steps, masks one by one, image encoded at each step": (
            1,
            lambda: one_by_one(trained, slow, 1, True),
        ),
        "image encoded once a mask": (1, lambda: one_by_one(trained, slow, 1, False)),
        f"masks of {group} images batched": (group, lambda: _members(trained, slow, group)),
        f"ours: {ours.sampler}, {ours.steps} evaluations": (group, lambda: _members(trained, ours, group)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    masks: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, (images, run) in methods.items():
            begun = time.perf_counter()
            masks[name] = run()[0]
            if turn:  # the first warms up
                seconds[name].append((time.perf_counter() - begun) / images)
    published, once, batched, _ = methods
    for other in (once, batched):
        difference = np.abs(masks[published] - masks[other]).max()
        print(f"largest difference of the published method's masks and '{other}': {difference:.1e}")
    return seconds


def _members(trained: Trained, sampling: SamplingConfig, images: int) -> list[np.ndarray]:
    """Of the first images."""
    found = {result.id: result.members for result in trained.segment(sampling, trained.dataset.ids[:images])}
    return [found[name] for name in trained.dataset.ids[:images]]


def _table(medians: dict[str, float]) -> str:
    first = next(iter(medians.values()))
    lines = ["| method | seconds an image | times faster | by this change |", "| --- | ---: | ---: | ---: |"]
    before = first
    for name, median in medians.items():
        lines.append(f"| {name} | {median:.2f} | {first / median:.1f} | {before / median:.2f} |")
        before = median
    return "\n".join(lines)


if __name__ == "__main__":
    main()
