"""What the web page shows of a segmentation: pieces of HTML that need no file."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Optional

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.masks.metrics import overlap
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.web.cases import data_uri, heat_of, outline, shrunk

STYLE = Path(__file__).with_suffix(".css").read_text()
_KINDS = {"": "mask", "_prob": "probability", "_std": "uncertainty", "_overlay": "overlay"}


def forming(image: np.ndarray, state: State, step: int) -> str:
    """The mask as the sampler sees it after network evaluation `step`, over the image uint8 (H, W, 3)."""
    size = shrunk(image.shape)
    clean = resize_probability(np.clip(state.x0[0].max(axis=0), 0, 1), size[::-1])
    noisy = Image.fromarray(np.uint8(np.clip((state.x[0].max(axis=0) + 3) / 6, 0, 1) * 255))
    noise = f'<img class="noise" src="{data_uri(noisy, "PNG")}" alt="The mask with the noise that is left">'
    said = Markup("<p>Step {} of the first mask.</p>").format(step)
    return f'<div class="msd-view" data-step="{step}">{said}{_picture(image, clean)}{noise}</div>'


def finished(found: Segmentation, truth: Optional[np.ndarray] = None) -> str:
    """Image, mask, uncertainty, agreement, downloads and, with a ground truth bool (H, W), scores."""
    sliders = "".join(
        f'<label>{words} <input type="range" min="0" max="1" step="0.05" value="{value}" '
        f"oninput=\"this.closest('.msd-view').style.setProperty('--{name}', this.value)\"></label>"
        for name, words, value in (("mask", "Mask", 0.3), ("heat", "Uncertainty", 0))
    )
    std = found.std if found.std.ndim == 2 else found.std.max(axis=0)
    picture = _picture(found.image, (found.mask > 0).astype(np.float32), std, truth)
    said = f"<p>{escape(agreement(found))}</p><p>{escape(scores(found, truth))}</p>"
    links = " ".join(
        f'<a download="{escape(name)}" href="data:image/png;base64,{base64.b64encode(content).decode()}">'
        f"{escape(kind)}</a>"
        for kind, name, content in downloads(found)
    )
    return f'<div class="msd-view" data-done="1">{picture}<p>{sliders}</p>{said}<p>Download: {links}</p></div>'


def downloads(found: Segmentation) -> list[tuple[str, str, bytes]]:
    """(what, file name, content) of the files that `medsegdiff sample` writes, the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        found.save(folder, maps=True)
        files = [(what, Path(folder) / f"{found.id}{end}.png") for end, what in _KINDS.items()]
        return [(what, path.name, path.read_bytes()) for what, path in files if path.is_file()]


def agreement(found: Segmentation) -> str:
    """How well the members agree, in a sentence, with what that does not say."""
    if found.agreement is None:
        return "One mask was sampled; at least two are needed to see how well they agree."
    if not found.mask.any():
        return "Nothing was found. That the sampled masks agree on it does not mean that nothing is there."
    words = next(words for least, words in ((0.9, "agree well"), (0.7, "differ in places"), (0, "disagree"))
                 if found.agreement >= least)  # fmt: skip
    return (
        f"The sampled masks {words}: the expected Dice of two is {found.agreement:.2f}. A low value is a warning; a "
        "high one says that the network is steady, not that it is right, least of all on images unlike its own."
    )


def scores(found: Segmentation, truth: Optional[np.ndarray]) -> str:
    """Scores against a ground truth, bool (H, W), in a sentence; empty without one."""
    if truth is None:
        return ""
    if truth.shape != found.mask.shape:
        height, width = truth.shape
        return f"The ground truth has {width} x {height} pixels, not the image's size: not scored."
    return ", ".join(f"{name} {value:.3f}" for name, value in overlap(found.mask > 0, truth)._asdict().items())


def _picture(
    image: np.ndarray, mask: np.ndarray, std: Optional[np.ndarray] = None, truth: Optional[np.ndarray] = None
) -> str:
    width, height = size = shrunk(image.shape)
    shown = data_uri(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), "JPEG")
    parts = [f'<image href="{shown}" width="{width}" height="{height}"/>']
    if std is not None:
        parts.append(f'<image class="heat" href="{heat_of(std, size)}" width="{width}" height="{height}"/>')
    parts.append(f'<path d="{outline(mask, size)}"/>')
    if truth is not None:
        parts.append(f'<path class="truth" d="{outline(truth, size)}"/>')
    words = "The image with the outline of its mask"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
