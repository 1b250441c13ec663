"""`medsegdiff doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from medsegdiff.app import cuda
from medsegdiff.app.options import Parser
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import note, tell
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig, read_run

SUMMARY = "check this machine and say how to fix what is missing; compile ahead"

PURPOSES = ("sample", "train")
# As wide as the demo's and as the published one. Kernels may differ with the width, and one of training with the number
# of blocks.
_NETWORKS = tuple(RunConfig(network=NetworkConfig(image_size=64, num_channels=width)) for width in (32, 128))
_STYLES = {"ok": "green", "optional": "yellow", "required": "bold red"}


def configure(parser: Parser) -> None:
    """Add the command's options."""
    text = "compile now what the first run would: for sample, train or, if none is named, both"
    parser.option("--warm", None, text, str, nargs="*", metavar="PURPOSE")
    text = "YAML files of options of the networks to compile for; default: as wide as the demo's and the published one"
    parser.option("--networks", [], text, str, nargs="+", metavar="FILE")
    cuda.configure(parser)


def run(options: Any) -> int:
    """Run the command; returns the exit code: 1 if nothing can compute here."""
    if cuda.is_asked_for(options):
        return cuda.run(options)
    from rich.console import Console
    from rich.text import Text

    from medsegdiff.doctor.diagnosis import ONNX, diagnose

    purposes = _purposes(options.warm)
    networks = [_network(name) for name in options.networks]
    findings = diagnose()
    # One line an item, however long: such lists are searched and pasted.
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        # The mark alone has a colour: yellow is hard to read on white.
        mark = (f"{finding.mark:10}", _STYLES[finding.mark])
        console.print(Text.assemble(mark, f"{finding.name:{width + 2}}{finding.text}"))
    tell("", findings=[{"mark": found.mark, "name": found.name, "text": found.text} for found in findings])
    lacking = [finding.name for finding in findings if finding.mark == "required"]
    if lacking:
        without_jittor = any(finding.name == ONNX and finding.mark == "ok" for finding in findings)
        said = "ready to segment, with ONNX Runtime; not to train" if without_jittor else "not ready"
        tell(f"{said}: {', '.join(lacking)} must be fixed first", ready=False, ready_to_segment=without_jittor)
        return 0 if without_jittor and options.warm is None else 1
    tell("ready", ready=True, ready_to_segment=True)
    if options.warm is not None:
        _warm(purposes, networks)
    return 0


def _purposes(named: Optional[Sequence[str]]) -> Sequence[str]:
    for purpose in named or ():
        if purpose not in PURPOSES:
            raise InputError(f"--warm {purpose}: must be {' or '.join(PURPOSES)}")
    return named or PURPOSES


def _network(name: str) -> RunConfig:
    try:
        return read_run(name).config
    except InputError as error:
        raise InputError(f"--networks {name}: {str(error).removeprefix(f'{name}: ')}") from None


def _warm(purposes: Sequence[str], networks: Sequence[RunConfig]) -> None:
    with _telling("Jittor's core"):
        from medsegdiff.doctor.warming import WARMINGS
    for config in networks or _NETWORKS:
        network = config.network
        for purpose in purposes:
            with _telling(f"{purpose}, image size {network.image_size}, {network.num_channels} channels"):
                WARMINGS[purpose](config)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    note(f"compiling {what}")
    begun = time.perf_counter()
    yield
    print(f"compiled {what}: {time.perf_counter() - begun:.0f} s", flush=True)
