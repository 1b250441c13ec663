"""`medsegdiff parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from medsegdiff.app.options import Parser
from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.base.screen import tell

SUMMARY = "replay numbers of the PyTorch original and print the errors"
_IMAGES = Path("data/ISIC/Train")


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("paths", type=str, nargs="+", help="case files (.npz), or folders of them")
    text = f"folder with the ISIC 2016 training CSV, for curves; by default {_IMAGES}, where it is there"
    parser.option("--isic-dir", "", text)
    text = "replay all steps of training curves, not the first 10 (ten minutes on two cores)"
    parser.option("--full-curve", False, text)
    parser.option("--out-dir", "", "write each replayed curve there: a plot and a CSV")


def run(options: Any) -> int:
    """Run the command; returns the exit code: 1 if anything differs from the original."""
    from medsegdiff.parity import cases

    files = cases.find([Path(path) for path in options.paths])
    loaded = [cases.load(file) for file in files]
    images = _find_images(options.isic_dir)
    if options.out_dir:
        # Complains of what would be lost, before anything takes long.
        Ledger(Path(options.out_dir), "parity").check(f"{case.name}.{end}" for case in loaded for end in ("csv", "png"))
    rows = []
    for case in loaded:
        rows += _show(_replay(case, images, options.full_curve, options.out_dir))
    excused = [row for row in rows if row.excused]
    failed = [row for row in rows if not (row.passed or row.excused)]
    inside = len(rows) - len(failed) - len(excused)
    said = f"{inside} comparisons inside their tolerance, {len(failed)} not, {len(excused)} not made"
    facts = {"cases": len(loaded), "inside": inside, "outside": len(failed), "not_made": len(excused)}
    tell(f"{len(loaded)} cases: {said}", **facts)
    return 1 if failed else 0


def _find_images(given: str) -> Optional[Path]:
    if given:
        if not Path(given).is_dir():
            raise InputError(f"--isic-dir {given}: no such folder")
        return Path(given)
    return _IMAGES if _IMAGES.is_dir() else None


def _replay(case: Any, images: Optional[Path], full_curve: bool, out_dir: str) -> list[Any]:
    from medsegdiff.parity import replay, training
    from medsegdiff.parity.report import Row

    if case.kind == "train":
        return training.train(case)
    if case.kind == "curve":
        if images is None:
            return [Row(case.name, "curve", note="needs the ISIC 2016 training images: --isic-dir", excused=True)]
        curve = training.curve(case, images, case.meta["steps"] if full_curve else 10)
        if out_dir:
            from medsegdiff.parity.figures import write_curve

            write_curve(curve, Path(out_dir))
        if not full_curve:
            print(f"{case.name}: the first 10 of {case.meta['steps']} steps; --full-curve replays all")
        return curve.rows
    if case.kind not in replay.KINDS:
        return [Row(case.name, f"kind {case.kind}", note="not supported")]
    return replay.KINDS[case.kind](case)


def _show(rows: list[Any]) -> list[Any]:
    for row in rows:
        error = "-" if row.error is None else f"{row.error:.2e}"
        tolerance = "-" if row.tolerance is None else f"{row.tolerance:.0e}"
        verdict = "ok" if row.passed else "not compared" if row.excused else "FAILED" if row.error is None else "OVER"
        note = f"  {row.note}" if row.note else ""
        print(f"{row.case:26} {row.quantity:34} {error:>9} <= {tolerance:>6}  {verdict}{note}", flush=True)
    return rows
