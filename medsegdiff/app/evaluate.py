"""`medsegdiff evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

from medsegdiff.app.options import Parser, add_section, check_layout, output_folder
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.data import DataName
from medsegdiff.config.run import pick
from medsegdiff.evaluation.metrics import USUAL, Rules

SUMMARY = "score predictions against ground truth: table, CSV, JSON"


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.option("--pred-path", "", "folder of the predictions")
    parser.option("--gt-path", "", "folder of the ground-truth masks")
    parser.option("--data-dir", "", "or a dataset's folder, to compare with its test masks")
    text = "where metrics.csv and .json go; default: --pred-path"
    parser.option("--out-dir", None, text)
    parser.option("--data-name", "auto", "the folder's layout; auto: found out", DataName)
    text = (
        "values of the ground truth that are classes, as 1,2,4 or 1:1,2:1,4:2, or a region of the dataset's own; "
        "default: as in training"
    )
    parser.option("--labels", "", text)
    add_section(parser, Rules)
    parser.put_first("--pred-path", "--gt-path", "--data-dir", "--out-dir", "--protocol")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    if not options.pred_path:
        raise InputError("--pred-path: missing; give the folder of the predictions")
    if bool(options.gt_path) == bool(options.data_dir):
        raise InputError("--gt-path, --data-dir: give one of them")
    check_layout(options.data_name, options.data_dir)
    rules = pick(Rules, vars(options))
    predictions, data_dir = Path(options.pred_path), Path(options.data_dir) if options.data_dir else None
    given = comparison(predictions, options.gt_path, data_dir, options.labels, rules, options.data_name)
    evaluate(options.pred_path, out_dir=options.out_dir, **given)
    return 0


def comparison(
    predictions: Path,
    ground_truth: Union[str, Path, Mapping[str, Path]],
    data_dir: Optional[Path],
    labels: str,
    rules: Rules,
    data_name: str = "auto",
) -> dict[str, Any]:
    """What predictions are compared with, for `evaluation.evaluate`; what is not given is as in training.

    The ground truth is a folder of masks, or their files by id; or, with `data_dir`, the test masks of that dataset,
    see `layouts.find_test`. The other arguments are as the options.
    """
    from medsegdiff.data import layouts
    from medsegdiff.evaluation.truth import truth_from_folder
    from medsegdiff.inference.results import read_run
    from medsegdiff.io.labels import parse_labels

    run, patients = read_run(predictions), {}
    if data_dir is not None:
        cases = [case for case in layouts.find_test(data_dir, data_name, run.kept) if case.mask]
        truth = {case.id: case.mask for case in cases}
        patients = {case.id: case.patient for case in cases if case.patient}
        classes = layouts.parse_labels(labels or run.labels, data_dir, data_name)
    else:
        truth = dict(ground_truth) if isinstance(ground_truth, Mapping) else truth_from_folder(Path(ground_truth))
        classes = parse_labels(labels or run.labels)
    if rules.num_classes == 2 and not classes:
        rules = dataclasses.replace(rules, num_classes=run.num_classes)
    return {"truth": truth, "rules": rules, "labels": classes, "patients": patients}


def evaluate(
    pred_path: str, truth: dict[str, Path], rules: Rules = USUAL, out_dir: Optional[str] = None, **given: Any
) -> Any:
    """Score, write the files, print the tables; returns the report. `given`: see `evaluation.evaluate`."""
    from rich.console import Console

    from medsegdiff.evaluation.evaluate import evaluate as score
    from medsegdiff.evaluation.report import RETENTION, SUMMARY, TABLE
    from medsegdiff.evaluation.screen import tables

    out = Path(pred_path) if out_dir is None else output_folder(out_dir)
    report = score(Path(pred_path), truth, rules, out, _note(truth), **given)
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
