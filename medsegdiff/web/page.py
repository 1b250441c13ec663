"""The web page, and the JSON interface beside it. Needs gradio: `pip install medsegdiff-jittor[app]`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import gradio as gr
from markupsafe import escape
from starlette.middleware import Middleware

from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SAMPLERS, SamplingConfig
from medsegdiff.data.source import read_source, shown
from medsegdiff.web import view
from medsegdiff.web.guard import Guard
from medsegdiff.web.incoming import EXAMPLES, Bounds, Files, case_of, example, files_of, truth_of
from medsegdiff.web.worker import Cancelled, Job, Step, Worker

_HINT = "Research software, no medical device. Images stay on the machine that runs this, and are not kept."
_KINDS = "PNG, JPEG, TIFF, BMP, DICOM, NIfTI"
_WHOLE, _ONE = "the whole volume", "the slice that is shown"
_SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def build(worker: Worker, bounds: Bounds, home: Path) -> gr.Blocks:
    """The page; what is sent lies in the folder `home` for as long as it is worked on."""
    config = worker.segmenter.config
    spec, classes = config.spec, config.network.num_classes

    def received(files: Files, chosen: str, folder: Path) -> Any:
        if not files and not chosen:
            raise InputError("give an image first, or choose an example")
        return case_of(files, folder / "image", bounds, spec) if files else example(chosen, folder)

    def look(text: str, chosen: str) -> tuple[str, Any, Any, str, str]:
        """Show what was given, before it is segmented."""
        with _working(home) as folder:
            case = received(files_of(text), chosen, folder)
            slices = shown(read_source(case, spec), spec)
        count, (height, width) = len(slices), slices.shape[1:3]
        number, several = count // 2, count > 1
        said = f"{case.id}: {f'{count} slices of ' if several else ''}{width} x {height} pixels. Press Segment."
        slider = gr.Slider(maximum=max(1, count - 1), value=number if several else 0, visible=several)
        return view.given(slices, number), slider, gr.Radio(visible=several), said, chosen

    async def show(
        text: str, truth: str, chosen: str, part: str, number: float,
        members: float, steps: float, sampler: str, seed: float,
    ) -> AsyncIterator[tuple[str, str]]:  # fmt: skip
        with _working(home) as folder:
            case = await _aside(received, files_of(text), chosen, folder)
            slices = await _aside(lambda: shown(read_source(case, spec), spec))
            given, true = files_of(truth), None
            if given:
                true = await _aside(truth_of, given, folder / "truth", bounds, case, spec, classes)
            wanted = [int(number)] if part == _ONE and len(slices) > 1 else None
            job = Job(case, folder, wanted, int(members), int(steps), sampler, int(seed or 0))
            total = SamplingConfig(sampler, job.steps or None).resolved(config.diffusion).steps
            taken: Counter[int] = Counter()
            page, said = view.given(slices, int(number)), "Sampling."
            if not worker.warm:
                yield page, "The first picture takes minutes if the network's kernels are not compiled yet."
            async for event in worker.steps(job):
                if not isinstance(event, Step):
                    page = await _aside(view.finished, event, folder / "out", slices, true, int(number))
                    said = "Done."
                elif event.leads:
                    at = event.number
                    taken[at] += 1
                    where = f"slice {at + 1} of {len(slices)}, " if len(slices) > 1 else ""
                    page = view.forming(slices[at], event.state, taken[at])
                    said = f"Sampling: {where}step {taken[at]} of {total}"
                yield page, said  # each time: gradio looks then whether anybody listens

    async def segment(
        files: dict[str, str],
        members: int = 5,
        steps: int = 0,
        sampler: str = "ddpm",
        seed: int = 0,
        slices: Optional[list[int]] = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Segment an image.

        `files` has the contents of its files in base64 by their names, that of a picture's without suffix being what
        the noise is drawn by; `slices` numbers those of a volume that are segmented. Gives `agreement`, `sentence`, and
        in `files` what `medsegdiff sample` writes, by name, in base64.
        """
        with _working(home) as folder:
            case = await _aside(case_of, files, folder / "image", bounds, spec)
            async for event in worker.steps(Job(case, folder, slices, members, steps, sampler, seed)):
                found = event
                yield {}  # as above
            written = await _aside(view.downloads, found, folder / "out")
            contents = {name: base64.b64encode(content).decode() for _, name, content in written}
            yield {"agreement": found.agreement, "sentence": view.agreement(found), "files": contents}

    with gr.Blocks(title="medsegdiff", analytics_enabled=False) as page:
        gr.Markdown(f"# medsegdiff\n{_HINT}")
        gr.HTML('<p id="connection" role="status"></p>')
        with gr.Row():
            with gr.Column():
                image = _drop("image", f"Image: {_KINDS}; the files of a volume or series together", bounds)
                chosen = gr.Dropdown(["", *EXAMPLES], value="", label="or an example")
                _drop("truth", "Ground truth, for scores (if there is one)", bounds)
                members = gr.Slider(1, worker.limits.members, 5, step=1, label="Masks sampled")
                steps = gr.Slider(
                    0, worker.limits.steps, 0, step=1, label="Steps (0: the network's default)", elem_id="steps"
                )
                sampler = gr.Dropdown(list(SAMPLERS), value=SAMPLERS[0], label="Sampler")
                seed = gr.Number(0, precision=0, label="Seed")
                part = gr.Radio([_WHOLE, _ONE], value=_WHOLE, label="Segment", visible=False, elem_id="part")
                with gr.Row():
                    run = gr.Button("Segment", variant="primary", elem_id="run")
                    stop = gr.Button("Cancel", elem_id="stop")
            with gr.Column():
                status = gr.Textbox("Give an image and press Segment.", label="Status", elem_id="status")
                number = gr.Slider(0, 1, 0, step=1, label="Slice, from 0", visible=False, elem_id="slice")
                result = gr.HTML(label="Result", elem_id="result")
        # The browser reads the files and puts their contents in the places of these, which are empty.
        texts = [gr.Textbox(visible=False), gr.Textbox(visible=False)]
        quick = {"api_visibility": "private", "concurrency_limit": 2, "concurrency_id": "look"}
        # What was given last is shown: a file takes the place of the example, and that of the files.
        seen = [result, number, part, status, chosen]
        image.input(look, [texts[0], chosen], seen, js="async () => [await medsegdiff.files('image'), '']", **quick)
        reading = "async (_, chosen) => [await medsegdiff.given(chosen), chosen]"
        chosen.input(look, [texts[0], chosen], seen, js=reading, **quick)
        number.change(None, number, None, js="medsegdiff.show", api_visibility="private")
        shared = {"concurrency_limit": 1, "concurrency_id": "network"}
        files = "await medsegdiff.files('image'), await medsegdiff.files('truth')"
        sent = f"async (...given) => [{files}, ...given.slice(2)]"
        inputs = [*texts, chosen, part, number, members, steps, sampler, seed]
        event = run.click(show, inputs, [result, status], js=sent, api_visibility="private", **shared)
        cancelled = {"cancels": [event], "queue": False, "api_visibility": "private"}
        stop.click(lambda: "Cancelled.", None, status, **cancelled)
        gr.api(segment, api_name="segment", **shared)
    page.queue(max_size=bounds.waiting)
    return page


def launching(bounds: Bounds) -> dict[str, Any]:
    """How the page is served: fonts of the system, nothing kept of what was done, here or in the browser."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    dark_enough = {
        f"button_primary_background_fill{state}{scheme}": f"*primary_{shade}"
        for state, shade in (("", 600), ("_hover", 700))
        for scheme in ("", "_dark")
    }
    return {
        "theme": gr.themes.Default(primary_hue="blue", **fonts).set(**dark_enough),
        "css": view.STYLE,
        "head": f"<script>{_SCRIPT}</script>",
        "js": "() => medsegdiff.watch()",
        "app_kwargs": {"middleware": [Middleware(Guard, megabytes=2 * bounds.megabytes)]},  # base64 takes a third more
        "run_history": False,
        "state_session_capacity": 4 * bounds.waiting,
        "prevent_thread_lock": True,
        "show_error": True,
        "quiet": True,
        "ssr_mode": False,
        "footer_links": ["api"],
    }


def _drop(name: str, words: str, bounds: Bounds) -> gr.HTML:
    """A place for files: they can be dropped on it, and stay in the browser."""
    several = "multiple" if name == "image" else ""
    return gr.HTML(
        f'<label class="msd-drop">{escape(words)}'
        f'<input type="file" {several} data-most="{bounds.megabytes * 10**6}"></label>',
        js_on_load="medsegdiff.area(element, () => trigger('input'))",
        elem_id=name,
    )


async def _aside(do: Callable[..., Any], *given: Any) -> Any:
    """Do it in another thread; who is cancelled waits for its end, as it may write where all is removed then."""
    done = asyncio.ensure_future(asyncio.to_thread(do, *given))
    try:
        return await asyncio.shield(done)
    finally:
        await asyncio.wait([done])


@contextlib.contextmanager
def _working(home: Path) -> Iterator[Path]:
    """A folder that goes when the work is done; what is refused is said in one line, without the folder's name."""
    with tempfile.TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as name:  # the worker may write there still
        try:
            yield Path(name)
        except Cancelled:
            raise gr.Error("cancelled", print_exception=False) from None
        except (InputError, RuntimeError) as error:
            line = str(error)
            for inner in ("image/", "truth/", ""):
                line = line.replace(f"{name}/{inner}", "")
            line = " ".join(Path(word).name if word.startswith("/") else word for word in line.split(" "))
            raise gr.Error(line, duration=None, print_exception=False) from None  # until it is closed
