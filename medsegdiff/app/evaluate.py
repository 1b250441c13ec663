"""`medsegdiff evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

from medsegdiff.app.options import Parser, output_folder
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.data import DataName
from medsegdiff.masks.protocols import PROTOCOLS, make_protocol
from medsegdiff.masks.surface import Empty

SUMMARY = "score predictions against ground truth: table, CSV, JSON"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--pred-path", type=str, default="", help="folder of the predictions")
    parser.add_argument("--gt-path", type=str, default="", help="folder of the ground-truth masks")
    parser.add_argument("--data-dir", type=str, default="", help="or a dataset's folder, whose test masks are taken")
    parser.add_argument(
        "--out-dir", type=Optional[str], default=None, help="where metrics.csv and .json go; default: --pred-path"
    )
    parser.add_argument(
        "--protocol",
        type=Literal[tuple(PROTOCOLS)],
        default="ours",
        help="how probabilities are compared at thresholds: ours, as they are; original, as the PyTorch code does, "
        "each divided by its maximum; jittor, as the published Jittor project does, each stretched to [0, 1]",
    )
    parser.add_argument(
        "--protocol-size",
        type=Optional[int],
        default=None,
        help="side of the square where they are compared; default: the protocol's own, 256, of jittor 64",
    )
    parser.add_argument("--data-name", type=DataName, default="auto", help="the folder's layout; auto: found out")
    parser.add_argument(
        "--labels",
        type=str,
        default="",
        help="values of the ground truth that are classes, as 1,2,4 or 1:1,2:1,4:2, or a region of the dataset's "
        "own; default: as in training",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        default=2,
        help="classes, background included; above 2 masks hold class indices; default: as in training, else 2",
    )
    parser.add_argument(
        "--empty",
        type=Empty,
        default="one",
        help="what counts where prediction and ground truth are both empty: nothing, the best value, or the worst",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="of the surface Dice, in millimetres of volumes, else in pixels"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.put_first("--pred-path", "--gt-path", "--data-dir", "--out-dir", "--protocol")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    if not options.pred_path:
        raise InputError("--pred-path: missing; give the folder of the predictions")
    if bool(options.gt_path) == bool(options.data_dir):
        raise InputError("--gt-path, --data-dir: give one of them")
    make_protocol(options.protocol, options.protocol_size)
    if not 2 <= options.num_classes <= 256:
        raise InputError(f"--num-classes {options.num_classes}: must be from 2 (with the background) to 256")
    from medsegdiff.data import layouts
    from medsegdiff.evaluation.truth import truth_from_folder
    from medsegdiff.inference.results import read_run
    from medsegdiff.io.labels import parse_labels

    run, patients = read_run(Path(options.pred_path)), {}
    if options.gt_path:
        truth, labels = truth_from_folder(Path(options.gt_path)), parse_labels(options.labels or run.labels)
    else:
        truth, patients = truth_of_dataset(Path(options.data_dir), options.data_name, run.kept)
        labels = layouts.parse_labels(options.labels or run.labels, Path(options.data_dir), options.data_name)
    classes = {
        "num_classes": run.num_classes if options.num_classes == 2 else options.num_classes,
        "labels": labels,
    }
    names = ("out_dir", "protocol_size", "seed", "protocol", "empty", "tolerance")
    given = {name: getattr(options, name) for name in names}
    evaluate(options.pred_path, truth, **given, **classes, patients=patients)
    return 0


def truth_of_dataset(
    root: Path, data_name: str = "auto", kept: Sequence[str] = ()
) -> tuple[dict[str, Path], dict[str, str]]:
    """The masks of a dataset's test cases by id, see `layouts.find_test`, and the patients of those that have one."""
    from medsegdiff.data.layouts import find_test

    cases = [case for case in find_test(root, data_name, kept) if case.mask]
    return {case.id: case.mask for case in cases}, {case.id: case.patient for case in cases if case.patient}


def evaluate(
    pred_path: str,
    truth: dict[str, Path],
    out_dir: Optional[str] = None,
    protocol_size: Optional[int] = None,
    seed: int = 0,
    num_classes: int = 2,
    protocol: str = "ours",
    empty: Empty = "one",
    tolerance: float = 1.0,
    labels: Optional[Mapping[int, int]] = None,
    patients: Optional[Mapping[str, str]] = None,
) -> Any:
    """Score, write the files, print the tables; returns the report."""
    from rich.console import Console

    from medsegdiff.evaluation.evaluate import evaluate as score
    from medsegdiff.evaluation.metrics import Rules
    from medsegdiff.evaluation.report import RETENTION, SUMMARY, TABLE
    from medsegdiff.evaluation.screen import tables

    out = Path(pred_path) if out_dir is None else output_folder(out_dir)
    rules, note = Rules(empty, tolerance), _note(truth)
    report = score(
        Path(pred_path), truth, out, protocol_size, note, seed, num_classes, protocol, rules, labels, patients
    )
    console = Console(soft_wrap=True)
    with console.capture() as shown:  # rich itself ends the process where nobody reads
        console.print(tables(report))
    print(shown.get(), end="")
    means = {name: found.mean for name, found in report.summaries.items()}
    tell(f"per image: {out / TABLE}; summary: {out / SUMMARY}", table=out / TABLE, summary=out / SUMMARY, means=means)
    if report.selection:
        print(f"error retention: {out / RETENTION}")
    return report


OFFICIAL_TEST_IMAGES = 379  # ISIC 2016, task 1 (Gutman et al., arXiv:1605.01397)


def _note(truth: dict[str, Path]) -> str:
    from medsegdiff.data.phantom import is_generated

    if any(is_generated(path) for path in truth.values()):
        return "These images are generated: the scores say nothing of real ones."
    isic2016 = all("ISBI2016" in str(path) for path in truth.values())
    if not isic2016 or len(truth) == OFFICIAL_TEST_IMAGES:
        return ""
    return (
        f"These are {len(truth)} images of the ISIC 2016 layout, not the official benchmark's "
        f"{OFFICIAL_TEST_IMAGES} test images: near to, but not, the official score."
    )
