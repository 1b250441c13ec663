"""A short visit to a machine with a GPU, from its set-up to a training (docs/gpu-runbook.md).

python -m benchmarks.gpu carry [--data-dir DIR]             # here: make the folder that travels
python -m benchmarks.gpu visit --out DIR [--budget 540]     # there: everything, in order of worth
python -m benchmarks.gpu report DIR [--published-logs DIR]  # here: the tables of what came back
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu.visit import ROOT, Visit, run
from medsegdiff.base.errors import InputError

CARRIED = ROOT / "gpu-carry"


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    carry = commands.add_parser("carry", help="make the folder that travels")
    carry.add_argument("--data-dir", type=Path, help="ISIC 2016 with Train and Test; without it no training is tried")
    carry.add_argument("--size", type=int, default=64, help="of the images that travel")
    carry.add_argument("--without-packages", action="store_true", help="the other machine has them all")
    carry.add_argument("--back", type=Path, help="what an earlier visit brought back, which is then not done again")
    for name, text in (("visit", "do everything there"), ("stage", "do one part of it; called by visit")):
        command = commands.add_parser(name, help=text)
        if name == "stage":
            command.add_argument("name")
            command.add_argument("--seconds", type=float, required=True)
        else:
            command.add_argument("--budget", type=float, default=540, help="seconds for everything")
        command.add_argument("--work", type=Path, default=Path("/tmp/medsegdiff-gpu"), help="a folder on a fast disk")
        command.add_argument("--out", type=Path, required=True, help="what comes back, complete at any time")
        command.add_argument("--rehearsal", action="store_true", help="a tiny network on the CPU")
    report = commands.add_parser("report", help="the tables of what came back")
    report.add_argument("back", type=Path, help="the folder that came back")
    report.add_argument("--published-logs", type=Path, help="folder with Pytorch.csv and Jittor.csv")
    for command in (carry, *(commands.choices[name] for name in ("visit", "stage"))):
        command.add_argument("--carried", type=Path, default=CARRIED, help="the folder that travels")
    options = parser.parse_args()
    try:
        return _run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if options.command == "carry":
        from benchmarks.gpu.carry import carry

        carry(options.carried, options.data_dir, options.size, not options.without_packages, options.back)
        return 0
    if options.command == "report":
        from benchmarks.gpu.report import report

        print(report(options.back, options.published_logs))
        return 0
    visit = Visit(options.work.absolute(), options.carried.absolute(), options.rehearsal)
    if options.command == "visit":
        return run(visit, options.out.absolute(), options.budget)
    from benchmarks.gpu.stages import stage

    return stage(visit, options.name, options.out.absolute(), options.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
