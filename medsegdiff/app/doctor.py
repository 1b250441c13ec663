"""`medsegdiff doctor`."""

from __future__ import annotations

from typing import Any

from medsegdiff.app import cuda
from medsegdiff.app.options import Parser

SUMMARY = "say what the machine offers, what is missing and how to mend it"

_STYLES = {"ok": "green", "optional": "yellow", "required": "bold red"}


def configure(parser: Parser) -> None:
    """Add the command's options."""
    cuda.configure(parser)


def run(options: Any) -> int:
    """Run the command; returns the exit code: 1 if something required is missing."""
    if cuda.is_asked_for(options):
        return cuda.run(options)
    from rich.console import Console
    from rich.text import Text

    from medsegdiff.engine.diagnosis import diagnose

    findings = diagnose()
    # One line an item, however long: such lists are searched and pasted.
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = Text(f"{finding.mark:10}", style=_STYLES[finding.mark])
        console.print(mark + Text(f"{finding.name:{width + 2}}{finding.text}"))
    lacking = [finding.name for finding in findings if finding.mark == "required"]
    if lacking:
        console.print(f"\nnot ready: {', '.join(lacking)} must be mended first")
        return 1
    console.print("\nready")
    return 0
