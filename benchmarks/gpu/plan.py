"""What a visit does: in full on a GPU, or the same stages with a tiny network on a CPU, as a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.sides import Variant, Work


class Stage(NamedTuple):
    """A part of the visit, in a process of its own."""

    name: str
    seconds: int
    """How long it may take; each row of its results is kept once it is there."""


STAGES = (
    Stage("setup", 270),
    Stage("check", 90),
    Stage("speed", 200),
    Stage("isic", 150),
    Stage("parity", 200),
    Stage("profile", 60),
    Stage("precision", 90),
    Stage("cache", 60),
)
"""In order of worth; the last one is granted its time before the others."""


@dataclass(frozen=True)
class Plan:
    """The extent of a visit."""

    cases: tuple[str, ...]
    """Parity cases, in order of worth."""
    works: tuple[Work, ...]
    """Whose time and memory are measured."""
    variants: tuple[Variant, ...]
    """By what."""
    rounds: int
    precisions: tuple[str, ...]
    """Whose first losses are put side by side."""
    training: Mapping[str, object]
    """Options of `medsegdiff train`, but for folders."""
    sampling: Mapping[str, object]
    """Options of `medsegdiff sample`, likewise."""
    profiled: Work


_TORCH = (
    Variant("PyTorch fp32", "torch", "fp32"),
    Variant("PyTorch bf16", "torch", "bf16"),
    Variant("PyTorch fp32, compiled", "torch", "fp32", compiled=True),
    Variant("PyTorch bf16, compiled", "torch", "bf16", compiled=True),
)
_OURS = (Variant("ours fp32", "medsegdiff", "fp32"), Variant("ours bf16", "medsegdiff", "bf16"))
_GRAPHS = (
    Variant("ours fp32, graphs", "medsegdiff, graphs", "fp32"),
    Variant("ours bf16, graphs", "medsegdiff, graphs", "bf16"),
)

ON_GPU = Plan(
    cases=(
        *("forward-new-64", "forward-v2-64", "train-new-64", "train-v2-64", "sample-ddpm-25"),
        *("forward-new-64-options", "forward-v2-64-options", "forward-new-128", "forward-v2-128", "forward-v1-256"),
        *("train-new-64-xstart", "sample-ddim-10", "sample-dpmpp-10"),
    ),
    works=tuple(Work("step", size, batch, 128) for size, batch in ((64, 16), (256, 8), (64, 8), (256, 16))),
    variants=(*_OURS, *_TORCH[:2], *_GRAPHS, *_TORCH[2:]),
    rounds=10,
    precisions=("fp32", "bf16", "fp16"),
    training={  # the published settings
        **{"image_size": 64, "num_channels": 128, "num_res_blocks": 2, "num_heads": 1, "attention_resolutions": "16"},
        **{"diffusion_steps": 100, "noise_schedule": "linear", "lr": 1e-4, "batch_size": 16, "steps": 150_000},
        **{"log_interval": 100, "save_interval": 100_000, "tensorboard": False},
    },
    sampling={"members": 5, "limit": 100},
    profiled=Work("step", 64, 16, 128),
)

REHEARSAL = Plan(
    cases=("schedules", "fusion-and-metrics"),
    works=(Work("step", 32, 2, 32),),
    variants=(*_OURS[:1], *_TORCH[:1]),
    rounds=1,
    precisions=("fp32",),
    training={
        **{"image_size": 32, "num_channels": 32, "channel_mult": "1,1", "num_res_blocks": 1, "diffusion_steps": 8},
        **{"noise_schedule": "cosine", "batch_size": 2, "steps": 4, "log_interval": 2, "tensorboard": False},
    },
    sampling={"members": 1, "limit": 2},
    profiled=Work("step", 32, 2, 32),
)
