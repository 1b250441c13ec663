"""Model cards: what an exported network is and where it comes from, for people (Markdown) and programs (JSON)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff import __version__
from medsegdiff.base.ownership import digest
from medsegdiff.checkpoints.weights import Weights

_TOLD = {
    "version": "Version of the network",
    "image_size": "Image size, pixels",
    "image_channels": "Channels of the image",
    "num_classes": "Classes, background included",
    "num_channels": "Base width",
    "diffusion_steps": "Diffusion steps of the training",
    "noise_schedule": "Noise schedule",
    "predict_xstart": "Predicts the clean mask, not the noise",
    "predict_v": "Predicts v, a mixture of both",
    "data_name": "Kind of training data",
    "steps": "Training steps planned",
    "ema_rate": "Decay of the averaged weights",
}
_TEXT = """# {name}

A conditional diffusion model that segments medical images (MedSegDiff, Wu et al., MIDL 2023; MedSegDiff-V2, AAAI 2024),
exported by medsegdiff {version}.

| | |
| --- | --- |
{rows}

All options, and digests of the files: `{json}`.
{notes}
## Use

For research only: this is not a medical device, and it was not tested for diagnosis. It was trained on images of one
data set; on others, from other cameras or scanners, of other patients or diseases, its masks may be wrong without any
sign. Measure it on your own ground truth first. The agreement of several sampled masks says how certain the network is,
not whether it is right.

The training data and their licences belong to their owners. State here what they are before you pass the file on.
"""


def card_of(path: Path) -> Path:
    """Where the JSON card of an exported file is."""
    return path.with_name(f"{path.name}.card.json")


def describe(weights: Weights, files: Sequence[Path], notes: Sequence[str]) -> dict[str, Any]:
    """The card of exported `files`, ready for JSON."""
    return {
        "name": files[0].stem,
        "made_by": f"medsegdiff {__version__}",
        "source": {"file": Path(weights.source).name, "digest": digest(Path(weights.source))},
        "files": {file.name: digest(file) for file in files},
        "parameters": sum(map(math.prod, (array.shape for array in weights.arrays.values()))),
        "notes": list(notes),
        "config": weights.config.flat(),
    }


def markdown(card: Mapping[str, Any], json_name: str) -> str:
    """The card for people."""
    facts = {text: card["config"][name] for name, text in _TOLD.items() if card["config"].get(name) not in ("", None)}
    facts = {**facts, "Parameters": f"{card['parameters']:,}", "Made from": card["source"]["file"]}
    cells = {text: str(value).replace("|", "\\|") for text, value in facts.items()}  # as in a file's name
    rows = "\n".join(f"| {text} | {value} |" for text, value in cells.items())
    notes = "".join(f"\n* {note[0].upper()}{note[1:]}." for note in card["notes"])
    return _TEXT.format(
        name=card["name"], version=__version__, rows=rows, json=json_name, notes=notes + "\n" if notes else ""
    )
