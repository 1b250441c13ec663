"""From a folder of predictions to a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import track
from medsegdiff.evaluation import summary
from medsegdiff.evaluation.measure import measure
from medsegdiff.evaluation.metrics import METRICS, USUAL, Rules, class_metrics
from medsegdiff.evaluation.predictions import PUBLISHED, find
from medsegdiff.evaluation.report import RETENTION, Report, check_free
from medsegdiff.evaluation.truth import read_truth
from medsegdiff.io.ensembles import read_ensembles
from medsegdiff.io.labels import classes_of
from medsegdiff.io.predictions import find_predictions
from medsegdiff.masks.protocols import make_protocol


def evaluate(
    pred_dir: Path,
    truth: dict[str, Path],
    rules: Rules = USUAL,
    out: Optional[Path] = None,
    note: str = "",
    labels: Optional[Mapping[int, int]] = None,
    patients: Optional[Mapping[str, str]] = None,
) -> Report:
    """Measure the predictions in `pred_dir` against the ground truth.

    Per image, the published protocol (see `protocols.make_protocol`; of the probability, or of the mask where there
    is no probability) and the overlap of the masks at the original resolution; where
    their files exist also the other rows of `metrics.METRICS`.
    A file of the published sampler, `<digits>_output_ens.jpg` or `.png` for the id `ISIC_<digits>`, has the
    network's resolution: for the overlap it is resized to that of the ground truth and cut at one half.

    Args:
        pred_dir: the folder of the predictions, see `medsegdiff.io.predictions`.
        truth: ground truth mask of every image to evaluate, by id; grey levels 0 and 255, or 0 and 1, and
            class indices where there are more than two classes.
        rules: how they are compared; `labels`, if given, say how many classes there are, and
            `num_classes` nothing else.
        out: where to write the report, if anywhere.
        note: a line about the dataset, repeated in the report.
        labels: the class of each value of the ground truth, and of predicted volumes, see `io.labels`.
        patients: whose an image is, by id, where there may be several of one: means over patients are given, too.

    Raises:
        InputError: there is no ground truth or no prediction for any of it, a file cannot be read, a prediction
            differs in size from its ground truth or is the same file, or `out` holds files of these names that are not
            an evaluation's.
    """
    num_classes = classes_of(labels or {}, rules.num_classes)
    protocol = make_protocol(rules.protocol, rules.protocol_size)
    if out is not None:
        check_free(Path(out))
    if not truth:
        raise InputError(f"{pred_dir}: there is no ground truth to compare with; give at least one mask")
    found = find(pred_dir, truth, num_classes)
    if not found:
        raise InputError(
            f"{pred_dir}: holds no prediction for any of the {len(truth)} ground truths; "
            f"expected files such as {next(iter(truth))}.png"
        )
    for id, prediction in found.items():
        if prediction.path.exists() and truth[id].exists() and prediction.path.samefile(truth[id]):
            raise InputError(
                f"{prediction.path}: is the ground truth, too, and would agree with itself; give predictions"
            )
    ensembles = read_ensembles(pred_dir)
    names = [path.name for id, path in find_predictions(pred_dir).items() if id not in truth]
    unknown = [name for name in names if name != RETENTION and not Path(name).stem.endswith(PUBLISHED)]
    scores = []
    for id, prediction in track(found.items(), len(found), "evaluating", "image"):
        drawn = read_truth(truth[id], num_classes, labels, prediction.path)
        scores.append(measure(id, prediction, drawn, protocol, ensembles.get(id), rules))
    gaps = summary.gaps(scores)
    if unknown:
        gaps.append(f"{len(unknown)} predictions have no ground truth and are not scored, such as {unknown[0]}")
    report = Report(
        scores=scores,
        summaries=summary.summaries(scores, [*METRICS, *class_metrics(num_classes)], rules.seed),
        missing=[id for id in truth if id not in found],
        protocol=protocol,
        num_classes=num_classes,
        rules=rules,
        calibration=summary.calibration(scores),
        comparison=summary.comparison(scores, rules.seed),
        selection=summary.selection(scores),
        gaps=tuple(gaps),
        note=note,
        patients=summary.by_patient(scores, patients or {}, rules.seed),
    )
    if out is not None:
        report.write(Path(out))
    return report
