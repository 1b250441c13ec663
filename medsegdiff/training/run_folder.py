"""The folder of a run: which files in it training may replace."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints import folder as checkpoints

CONFIG, RUN = "config.yaml", "run.json"
LOG, EVENTS = "log.csv", "events.jsonl"
PROGRESS = "progress.png"
TENSORBOARD, SAMPLES = "tensorboard", "samples"
WRITER = "train"


def own(out: Path) -> Ledger:
    """What training wrote into `out`, which need not exist; all that it is going to write is its own, or not there.

    A run from before there were ledgers is known by its checkpoints.

    Raises:
        InputError: a file of a name that training uses is not its own, a checkpoint's folder holds what is no part of
            one, a file or a link is where a folder is to be, or `out` is a checkpoint or belongs to another training.
    """
    if (out / checkpoints.STATE).is_file():
        raise InputError(f"{out}: is a checkpoint; to continue, give the training's folder, {out.parent}, as `out_dir`")
    if out.absolute().name == checkpoints.BEST and checkpoints.list_checkpoints(out.absolute().parent):
        raise InputError(f"{out}: belongs to the training above it, which clears it; give another `out_dir`")
    ledger = Ledger(out, WRITER)
    pictures = [f"{SAMPLES}/{path.name}" for path in sorted((out / SAMPLES).glob("step-*.png"))]
    written = [CONFIG, RUN, *pictures]
    if not ledger.groups and any((path / checkpoints.STATE).is_file() for path in checkpoints.list_checkpoints(out)):
        ledger.claim(name for name in written if (out / name).is_file())
        ledger.claim([LOG, EVENTS], grows=True)
    folders = (TENSORBOARD, SAMPLES, checkpoints.BEST)
    no_folders = [name for name in folders if (out / name).is_symlink() or not (out / name).is_dir()]
    ledger.check([*written, LOG, EVENTS, PROGRESS, *no_folders])
    for folder in (out, out / checkpoints.BEST):
        for path in checkpoints.list_checkpoints(folder):
            if not (path / checkpoints.STATE).is_file():  # what is damaged alone will be replaced
                checkpoints.check_own(path)
    return ledger
