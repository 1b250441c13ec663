"""What the web page shows of an image and of what was found in it: pieces of HTML that need no file."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Optional

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.predictions import files_of
from medsegdiff.io.volumes import DICOM
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.web.cases import data_uri, heat_of, outline, size_shown
from medsegdiff.web.worker import Found

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
_KINDS = {
    "": "mask", "_prob": "probability", "_std": "uncertainty", "_overlay": "overlay", DICOM: "DICOM segmentation",
}  # fmt: skip
_TYPES = {".png": "image/png", ".nii.gz": "application/gzip", ".dcm": "application/dicom"}


def given(slices: np.ndarray, number: int) -> str:
    """An image uint8 (D, H, W, 3) that is not segmented yet; of several slices `number` is seen."""
    return f'<div class="msd-view">{_frames([_picture(image) for image in slices], number)}</div>'


def forming(image: np.ndarray, state: State, step: int) -> str:
    """The mask as the sampler sees it after network evaluation `step`, over the image uint8 (H, W, 3)."""
    size = size_shown(image.shape)
    clean = resize_probability(np.clip(state.x0[0].max(axis=0), 0, 1), size[::-1])
    noisy = Image.fromarray(np.uint8(np.clip((state.x[0].max(axis=0) + 3) / 6, 0, 1) * 255))
    noise = f'<img class="noise" src="{data_uri(noisy, "PNG")}" alt="The mask with the noise that is left">'
    said = Markup("<p>Step {} of the first mask.</p>").format(step)
    return f'<div class="msd-view" data-step="{step}">{said}{_picture(image, clean)}{noise}</div>'


def finished(
    found: Found, folder: Path, slices: np.ndarray, truth: Optional[np.ndarray] = None, number: int = 0
) -> str:
    """Images, masks, uncertainty, agreement, downloads and, with a ground truth bool (D, H, W), scores.

    Files are written into `folder`; the page has their contents and does without them.
    """
    sliders = "".join(
        f'<label>{words} <input type="range" min="0" max="1" step="0.05" value="{value}" '
        f"oninput=\"this.closest('.msd-view').style.setProperty('--{name}', this.value)\"></label>"
        for name, words, value in (("mask", "Mask", 0.3), ("heat", "Uncertainty", 0))
    )
    masks, deviations = _layers(found)
    frames = [
        _picture(
            image,
            None if at not in masks else (masks[at] > 0).astype(np.float32),
            deviations.get(at),
            None if truth is None else truth[at],
        )
        for at, image in enumerate(slices)
    ]
    lines = "" if truth is None else "<p>Yellow: the ground truth; blue: the mask.</p>"
    said = f"{lines}<p>{escape(agreement(found))}</p><p>{escape(scores(masks, truth))}</p>"
    links = " ".join(
        f'<a download="{escape(name)}" href="data:{_type(name)};base64,{base64.b64encode(content).decode()}">'
        f"{escape(kind)}</a>"
        for kind, name, content in downloads(found, folder)
    )
    shown = _frames(frames, number if number in masks else next(iter(masks)))
    return f'<div class="msd-view" data-done="1">{shown}<p>{sliders}</p>{said}<p>Download: {links}</p></div>'


def downloads(found: Found, folder: Path) -> list[tuple[str, str, bytes]]:
    """(what, file name, content) of the files that `medsegdiff sample` writes, the same bytes, into `folder`.

    Of several classes each has its probability and its uncertainty, named with its number.
    """
    found.save(folder, maps=True)
    files = []
    for name in files_of(folder, {found.id}):
        kind, label, end = re.findall(r"^(\D*?)(\d*)(\.\D+)$", name[len(found.id) :])[0]
        kind = end if end == DICOM else kind
        if kind in _KINDS:
            what = f"{_KINDS[kind]} {label}".rstrip()
            files.append((list(_KINDS).index(kind), what, name, (folder / name).read_bytes()))
    return [file[1:] for file in sorted(files)]


def agreement(found: Found) -> str:
    """How well the members agree, in a sentence, and what that does not tell."""
    if found.agreement is None:
        return "One mask was sampled; at least two are needed to see how well they agree."
    if not any(mask.any() for mask in _layers(found)[0].values()):
        return "Nothing was found. That the sampled masks agree on it does not mean that nothing is there."
    words = next(words for least, words in ((0.9, "agree well"), (0.7, "differ in places"), (0, "disagree"))
                 if found.agreement >= least)  # fmt: skip
    return (
        f"The sampled masks {words}: the expected Dice of two is {found.agreement:.2f}. A low value is a warning; a "
        "high one says that the network is consistent, not that it is right, above all on unfamiliar images."
    )


def scores(masks: dict[int, np.ndarray], truth: Optional[np.ndarray]) -> str:
    """Scores of the slices that have masks against a ground truth, bool (D, H, W), in a sentence; or none."""
    if truth is None:
        return ""
    found, true = np.stack(list(masks.values())) > 0, truth[list(masks)]
    words = ", ".join(f"{name} {value:.3f}" for name, value in overlap(found, true)._asdict().items())
    return words if len(masks) == len(truth) else f"{words}, of the slices that were segmented"


def _layers(found: Found) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Masks and standard deviations (H, W) by the slices' numbers."""
    if isinstance(found, Segmentation):
        return {0: found.mask}, {0: found.std if found.std.ndim == 2 else found.std.max(axis=0)}
    return {at: found.mask(at) for at in found.numbers}, {at: found.std(at) for at in found.numbers}


def _type(name: str) -> str:
    return next(kind for end, kind in _TYPES.items() if name.endswith(end))


def _frames(pictures: list[str], number: int) -> str:
    if len(pictures) == 1:
        return pictures[0]
    hidden = (" hidden" * (at != number) for at in range(len(pictures)))
    return "".join(
        f'<div data-slice="{at}"{hide}>{shown}</div>' for at, (shown, hide) in enumerate(zip(pictures, hidden))
    )


def _picture(
    image: np.ndarray,
    mask: Optional[np.ndarray] = None,
    std: Optional[np.ndarray] = None,
    truth: Optional[np.ndarray] = None,
) -> str:
    width, height = size = size_shown(image.shape)
    shown = data_uri(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), "JPEG")
    parts = [f'<image href="{shown}" width="{width}" height="{height}"/>']
    if std is not None:
        parts.append(f'<image class="heat" href="{heat_of(std, size)}" width="{width}" height="{height}"/>')
    if mask is not None:
        parts.append(f'<path d="{outline(mask, size)}"/>')
    if truth is not None:
        parts.append(f'<path class="truth" d="{outline(truth, size)}"/>')
    words = "The image" if mask is None else "The image with the outline of its mask"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
