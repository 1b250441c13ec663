"""`medsegdiff data check`."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from medsegdiff.app.options import Parser
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.base.screen import counted, tell
from medsegdiff.config.data import DataName
from medsegdiff.io.labels import classes_of

if TYPE_CHECKING:
    from medsegdiff.data.cases import Case
    from medsegdiff.data.check import Checked
    from medsegdiff.plots.contact_sheet import Tile

_TILES = 24


def configure(parser: Parser) -> None:
    """Add the action's options."""
    parser.option("--data-dir", "", "the dataset's folder")
    parser.option("--data-name", "auto", "the folder's layout; auto: found out", DataName)
    parser.option("--labels", "", "values of the masks that are classes, as 1,2,4; default: as found")
    parser.option("--num-classes", 2, "classes, background included; above 2 masks hold class indices")
    parser.option("--sheet", None, "PNG to write: images with the outlines of their masks")


def run(options: Any) -> int:
    """Run the action; returns the exit code: 1 where something was found."""
    if not options.data_dir:
        raise InputError("--data-dir: missing; give the dataset's folder")
    if not 2 <= options.num_classes <= 256:
        raise InputError(f"--num-classes {options.num_classes}: must be from 2 (with the background) to 256")
    sheet = None if options.sheet is None else Path(options.sheet)
    if sheet is not None:
        if sheet.suffix.lower() != ".png":
            raise InputError(f"--sheet {sheet}: must end in .png")
        Ledger(sheet.parent, "data check").check([sheet.name])
    from medsegdiff.data.check import check
    from medsegdiff.data.layouts import parse_labels

    labels = parse_labels(options.labels, Path(options.data_dir), options.data_name)
    classes_of(labels, options.num_classes)  # complains where they differ
    found = check(Path(options.data_dir), options.data_name, labels, options.num_classes)
    tell("\n".join(_lines(found)), **_plain(found))
    if sheet is not None:
        _draw(found, sheet, options.num_classes)
    return 1 if found.findings else 0


def _counts(found: Checked) -> dict[str, int]:
    return dict(Counter(finding.kind for finding in found.findings))


def _lines(found: Checked) -> list[str]:
    from medsegdiff.data.check import PURPOSES

    lines = [f"{finding.kind}: {finding.file}: {finding.what}" for finding in found.findings]
    cases = ", ".join(
        f"{counted(len(cases), 'case')} for {PURPOSES[split]}" for split, cases in found.cases.items() if cases
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in _counts(found).items())
    lines.append(f"layout {found.layout}: {cases or 'no case'}")
    lines += [f"fingerprint: {line}" for line in (found.fingerprint.lines() if found.fingerprint else ())]
    return [*lines, f"{counted(len(found.findings), 'finding')}: {kinds}" if kinds else "nothing found"]


def _plain(found: Checked) -> dict[str, Any]:
    return {
        "layout": found.layout,
        "cases": {split: len(cases) for split, cases in found.cases.items()},
        "findings": [{**finding._asdict(), "file": str(finding.file)} for finding in found.findings],
        "counts": _counts(found),
        "fingerprint": found.fingerprint and found.fingerprint.plain(),
    }


def _draw(found: Checked, sheet: Path, num_classes: int) -> None:
    """Write the contact sheet: cases with findings first, then others from all over the dataset."""
    from PIL import Image

    from medsegdiff.plots.contact_sheet import contact_sheet

    flags: dict[Path, str] = {}
    for finding in found.findings:
        flags.setdefault(finding.file, finding.kind)
    cases = [case for some in found.cases.values() for case in some]
    flag = {case.image: next((flags[path] for path in case.files if path in flags), "") for case in cases}
    some = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, _TILES).astype(int))] if cases else []
    chosen = list(dict.fromkeys([*(case for case in cases if flag[case.image]), *some]))
    drawn = (_tile(found, case, flag[case.image], num_classes) for case in chosen)
    tiles = list(itertools.islice(filter(None, drawn), _TILES))
    if not tiles:
        raise InputError(f"{sheet}: not written, no image can be drawn")
    with Ledger(sheet.parent, "data check").together(sheet.name) as stage:
        Image.fromarray(contact_sheet(tiles)).save(stage / sheet.name)


def _tile(found: Checked, case: Case, flag: str, num_classes: int) -> Optional[Tile]:
    """A case on the sheet, of a volume the slice with most foreground; None if it cannot be drawn."""
    from medsegdiff.data.source import read_classes, read_source, shown
    from medsegdiff.plots.contact_sheet import Tile

    spec, mask = found.spec, None
    if spec is None:
        return None
    try:
        source = read_source(case, spec)
    except InputError:
        return None
    slice_ = len(source.values) // 2
    if case.mask:
        with contextlib.suppress(InputError):
            classes = read_classes(case, spec, max(num_classes, spec.num_classes), source)
            slice_ = int((classes > 0).sum(axis=(1, 2)).argmax())
            mask = classes[slice_] > 0
    return Tile(shown(source, spec)[slice_], mask, case.id, flag)
