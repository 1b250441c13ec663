"""The web page, and the JSON interface beside it. Needs gradio: `pip install medsegdiff-jittor[app]`."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Optional

import gradio as gr
import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.config.sampling import SAMPLERS
from medsegdiff.data.drawing import draw
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.masks import read_mask
from medsegdiff.io.pictures import read_image, size_of
from medsegdiff.web import view
from medsegdiff.web.worker import Cancelled, Job, Worker

_EXAMPLES = ("", "generated 1", "generated 2")
_HINT = "Research software, no medical device. Images stay on the machine that runs this, and are not kept."


# gradio names its upload areas otherwise than they read, which who steers by voice cannot say.
_LABELS = """() => {
  const areas = () => document.querySelectorAll('.upload-container[aria-label]');
  const bare = () => areas().forEach(e => e.removeAttribute('aria-label'));
  bare();
  new MutationObserver(bare).observe(document.body, {subtree: true, childList: true});
}"""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What may come in."""

    megabytes: int = 32
    megapixels: int = 25
    waiting: int = 16


def build(worker: Worker, bounds: Bounds) -> gr.Blocks:
    """The page; uploads are removed ten minutes after they came."""

    async def show(
        path: Optional[str], example: str, truth: Optional[str], members: float, steps: float, sampler: str, seed: float
    ) -> AsyncIterator[tuple[str, str]]:
        with _refusals():
            if not path and not example:
                raise InputError("drop an image first, or choose an example")
            image, name = _picture(Path(path), bounds) if path else _example(example)
            true = read_mask(Path(truth)) > 0.5 if truth else None
            job, step = Job(image, name, int(members), int(steps), sampler, int(seed)), 0
            async for event in worker.steps(job):
                if isinstance(event, Segmentation):
                    yield view.finished(event, true), "Done."
                else:
                    step += 1
                    yield view.forming(image, event, step), f"Sampling, step {step}"

    async def segment(
        image: str, name: str = "image", members: int = 5, steps: int = 0, sampler: str = "ddpm", seed: int = 0
    ) -> dict[str, Any]:
        """Segment an image.

        `image` is the file's bytes in base64, `name` its name without suffix, by which the noise is drawn. Gives
        `agreement`, `sentence`, and the files `mask`, `probability`, `uncertainty` and `overlay` as PNG in base64.
        """
        with _refusals(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            try:
                path.write_bytes(base64.b64decode(image, validate=True))
            except binascii.Error:
                raise InputError("image: is not base64") from None
            pixels, _ = _picture(path, bounds)
            async for event in worker.steps(Job(pixels, name, members, steps, sampler, seed)):
                found = event
            files = {what: base64.b64encode(content).decode() for what, _, content in view.downloads(found)}
            return {"agreement": found.agreement, "sentence": view.agreement(found), **files}

    with gr.Blocks(title="medsegdiff", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(f"# medsegdiff\n{_HINT}")
        with gr.Row():
            with gr.Column():
                image = gr.File(label="Image (PNG, JPEG, TIFF, BMP)", elem_id="image", height=150)
                example = gr.Dropdown(list(_EXAMPLES), value="", label="or an example")
                truth = gr.File(label="Ground truth, for scores (if there is one)", elem_id="truth", height=150)
                members = gr.Slider(1, worker.limits.members, 5, step=1, label="Masks sampled")
                steps = gr.Slider(
                    0, worker.limits.steps, 0, step=1, label="Steps (0: what the network needs)", elem_id="steps"
                )
                sampler = gr.Dropdown(list(SAMPLERS), value=SAMPLERS[0], label="Sampler")
                seed = gr.Number(0, precision=0, label="Seed")
                with gr.Row():
                    run = gr.Button("Segment", variant="primary", elem_id="run")
                    stop = gr.Button("Cancel", elem_id="stop")
            with gr.Column():
                status = gr.Textbox("Drop an image and press Segment.", label="Status", elem_id="status")
                result = gr.HTML(label="Result", elem_id="result")
        inputs = [image, example, truth, members, steps, sampler, seed]
        shared = {"concurrency_limit": 1, "concurrency_id": "network"}
        event = run.click(show, inputs, [result, status], api_visibility="private", **shared)
        cancelled = {"cancels": [event], "queue": False, "api_visibility": "private"}
        stop.click(lambda: "Cancelled.", None, status, **cancelled)
        gr.api(segment, api_name="segment", **shared)
    page.queue(max_size=bounds.waiting)
    return page


def look() -> dict[str, Any]:
    """How the page looks, for `launch`: fonts of the system, none from elsewhere."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    return {"theme": gr.themes.Default(primary_hue="blue", **fonts), "css": view.STYLE, "js": _LABELS}


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Say what is refused on the page, in one line, without the names of this machine's folders."""
    try:
        yield
    except Cancelled:
        raise gr.Error("cancelled", print_exception=False) from None
    except (InputError, RuntimeError) as error:
        raise gr.Error(_without_folders(str(error)), print_exception=False) from None


def _without_folders(line: str) -> str:
    return " ".join(Path(word).name if word.startswith("/") else word for word in line.split(" "))


def _picture(path: Path, bounds: Bounds) -> tuple[np.ndarray, str]:
    width = height = 0
    with contextlib.suppress(Exception):  # what it is not, reading says
        width, height = size_of(path)
    if width * height > bounds.megapixels * 10**6:
        limit = f"more than the {bounds.megapixels} million pixels that are taken here; make it smaller"
        raise InputError(f"{path}: {width} x {height}, {limit}")
    return read_image(path), path.stem


def _example(name: str) -> tuple[np.ndarray, str]:
    return draw(generator("example", name), 256)[0], name.replace(" ", "-")
