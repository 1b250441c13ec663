"""`medsegdiff report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.app.options import Parser

SUMMARY = "one HTML page on runs: curves, scores, cases, calibration, speed; several side by side"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "runs", type=str, nargs="+", metavar="RUN", help="folders of trainings or of scored predictions, or above them"
    )
    parser.add_argument(
        "--out", type=str, default="", help="the page to write, which needs no other file; default: report.html in RUN"
    )


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    from medsegdiff.web.report import PAGE, write_report

    folders = [Path(folder) for folder in options.runs]
    print(f"report: {write_report(folders, Path(options.out) if options.out else folders[0] / PAGE)}")
    return 0
