"""What may not change when a training continues."""

from __future__ import annotations

import dataclasses

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig, difference

# Options that change neither what is learnt nor what is logged.
_INDIFFERENT = {"out_dir", "steps", "save_interval", "keep", "tensorboard", "data_dir", "cache_dir"}


def compare(found: Checkpoint, config: RunConfig, dataset: str) -> None:
    """Say which options of `config` are new to the run whose checkpoint was `found`; `dataset` is a fingerprint.

    Raises:
        InputError: the checkpoint is of another network or process, or of other data.
    """
    out = config.training.out_dir
    for section in ("network", "diffusion"):
        if differs := difference(getattr(config, section), getattr(found.config, section)):
            raise InputError(
                f"{out}: was trained with {differs}; give the same options to continue, or another `out_dir`"
            )
    if found.dataset != dataset:
        held_out = difference(config.validation, found.config.validation)
        where = {name: getattr(config.data, name) for name in ("data_dir", "cache_dir")}
        reading = difference(config.data, dataclasses.replace(found.config.data, **where))
        hint = f" (and the same share held out: {held_out})" if held_out else f" (and {reading})" if reading else ""
        raise InputError(f"{out}: was trained on other images or masks; give the same data{hint}, or another `out_dir`")
    ours, theirs = config.flat(), found.config.flat()
    for name in ours:
        if name not in _INDIFFERENT and ours[name] != theirs[name]:
            now, was = (str(values[name]) or '""' for values in (ours, theirs))
            screen.note(f"note: continuing with `{name}` {now}, was {was}")
    end, before = config.training.annealed, found.config.training.annealed
    if end != before and end and before:  # as where `steps` says when it ends
        screen.note(f"note: the learning rate now falls to 0 at step {end}, not {before}")
