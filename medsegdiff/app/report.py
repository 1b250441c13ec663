"""`medsegdiff report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.app.options import Parser
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell

SUMMARY = "compare runs on one HTML page: curves, scores, cases, calibration"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    text = "folders of trainings or of scored predictions, or above them"
    parser.add_argument("runs", type=str, nargs="+", metavar="RUN", help=text)
    parser.option("--out", "", "the page to write, one file that needs no other; default: report.html in RUN")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    from medsegdiff.web.report import PAGE, write_report

    if "" in options.runs:
        raise InputError('RUN "": is empty; give a folder, or . for the working directory')
    folders = [Path(folder) for folder in options.runs]
    page = write_report(folders, Path(options.out) if options.out else folders[0] / PAGE)
    tell(f"report: {page}", report=page)
    return 0
