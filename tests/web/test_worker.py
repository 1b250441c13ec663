import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medsegdiff.api import Segmenter
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import remove
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.data.cases import Case
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.web.worker import Cancelled, Job, Step, Worker
from tests.data.volumes import ball, write
from tests.fake_denoiser import Bright

CONFIG = RunConfig(diffusion=DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True))
IMAGE = np.full((20, 30, 3), 200, np.uint8)
VOLUMES = replace(CONFIG, data=DataConfig(scaling="150..550", colour=False, skip_blank=True),
                  network=NetworkConfig(image_channels=1))  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """Makes jobs of pictures of one grey."""

    def make(name, value=200, **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.png"
        Image.fromarray(np.full_like(IMAGE, value)).save(path)
        return Job(Case(name, (path,)), folder, **options)

    return make


@pytest.fixture
def worker():
    worker = Worker(Segmenter(Bright(), CONFIG))
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.close()
    thread.join(5)
    assert not thread.is_alive()


def events(worker, *jobs, stop_after=None):
    """What is heard of each job; the listener leaves after so many events."""

    async def hear(job):
        heard = []
        steps = worker.steps(job)
        async for event in steps:
            heard.append(event)
            if len(heard) == stop_after:
                await steps.aclose()
                break
        return heard

    async def all_of_them():
        return await asyncio.gather(*map(hear, jobs))

    return asyncio.run(all_of_them())


def test_the_states_come_first_and_the_mask_last(worker, job):
    [heard] = events(worker, job("x", members=2, steps=4, seed=3))
    assert all(isinstance(event, Step) for event in heard[:-1]) and len(heard) == 5
    alone = worker.segmenter.segment(IMAGE, id="x", members=2, steps=4, seed=3)
    np.testing.assert_array_equal(heard[-1].members, alone.members)


def test_every_batch_is_said_and_which_has_the_first_mask(worker, job):
    [heard] = events(worker, job("x", members=20, steps=2))
    assert [event.leads for event in heard[:-1]] == [True, True, False, False]


def test_it_knows_whether_the_network_has_computed(worker, job):
    assert not worker.warm
    events(worker, job("x"))
    assert worker.warm


def test_two_at_once_get_their_own(worker, job):
    first, second = events(worker, job("a"), job("b", 0))
    assert (first[-1].id, second[-1].id) == ("a", "b")
    assert first[-1].mask.all() and not second[-1].mask.any()


def test_who_leaves_stops_the_job_and_the_next_goes_on(worker, job):
    first = job("x", steps=8)
    asked = []
    denoise = worker.segmenter._denoiser.denoise
    go_on = threading.Event()

    def slow(mask_t, t, condition):
        asked.append(t)
        if len(asked) == 2:
            go_on.wait(5)
        return denoise(mask_t, t, condition)

    worker.segmenter._denoiser.denoise = slow
    [heard] = events(worker, first, stop_after=1)
    go_on.set()
    assert len(heard) == 1 and first.cancelled.is_set()
    [after] = events(worker, job("y", steps=2))
    assert isinstance(after[-1], Segmentation)
    assert len(asked) == 2 + 2  # the first one took no third step


def test_nothing_is_left_of_what_is_written_after_the_listener_left(worker, job):
    first, gone = job("x"), threading.Event()

    def segment(*_, **__):
        assert gone.wait(5)
        (first.folder / "cache").mkdir(parents=True)
        (first.folder / "cache" / "slices").write_text("of a patient")

    async def leave():
        listening = asyncio.ensure_future(worker.steps(first).__anext__())
        await asyncio.sleep(0.5)
        listening.cancel()
        await asyncio.wait([listening])

    usual, worker.segmenter.segment = worker.segmenter.segment, segment
    asyncio.run(leave())
    remove(first.folder)
    gone.set()
    worker.segmenter.segment = usual
    events(worker, job("y"))
    assert not first.folder.exists()


def test_a_job_cancelled_before_its_turn_is_not_begun(worker, job):
    first = job("x")
    first.cancelled.set()
    with pytest.raises(Cancelled):
        events(worker, first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": 0}, "members"), ({"steps": 999}, "steps"), ({"sampler": "x"}, "sampler x"),
        ({"members": "many"}, "members 'many': must be a whole"), ({"seed": None}, "seed None: must be a whole"),
        ({"slices": "all"}, "slices 'all': must be a list"), ({"slices": [0.5]}, "slices .0.5.: must be a list"),
    ],
)  # fmt: skip
def test_senseless_jobs_are_refused(worker, job, wrong, message):
    with pytest.raises(InputError, match=message):
        events(worker, job("x", **wrong))


def test_a_failure_ends_the_job_alone(worker, job):
    denoise = worker.segmenter._denoiser.denoise
    worker.segmenter._denoiser.denoise = None
    with pytest.raises(RuntimeError, match="unexpected TypeError"):
        events(worker, job("x"))
    worker.segmenter._denoiser.denoise = denoise
    assert isinstance(events(worker, job("x"))[0][-1], Segmentation)


def test_the_slices_that_are_wanted_are_worked_on_and_said(tmp_path):
    worker = Worker(Segmenter(Bright(), VOLUMES))
    thread = threading.Thread(target=worker.run)
    thread.start()
    path = write(tmp_path / "v.nii.gz", ball()[0])
    [heard] = events(worker, Job(Case("v", (path,)), tmp_path, slices=[4, 6], members=2, steps=2))
    worker.close()
    thread.join(5)
    assert {event.number for event in heard[:-1]} <= {4, 6} and len(heard) > 2
    assert heard[-1].numbers == [4, 6]
