"""A training that is killed again and again: what `test_sigkill` runs, in a process of its own.

    python -m tests.e2e.killing FOLDER

trains in FOLDER/whole without a disturbance and in FOLDER/killed with many, and writes FOLDER/kills.json. Jittor
starts and loads its kernels once: each training is a fork of this process, which itself computes with one thread alone,
so that OpenMP has none that a fork would lose.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from medsegdiff.base.randomness import generator
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig, ValidationConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.training import loop
from medsegdiff.training.trainer import Trainer
from tests.conftest import Discs
from tests.training.variants import draw_nothing, with_training

KILLS, STEPS, INTERVAL, KEEP = 25, 64, 2, 3  # the last kill is to come before the last step


def configuration(out):
    """A small run with everything at work that resuming must restore."""
    return RunConfig(
        network=NetworkConfig(image_size=32, num_channels=32, channel_mult="1", num_res_blocks=1, dropout=0.1),
        diffusion=DiffusionConfig(diffusion_steps=30),
        data=DataConfig(augment=True),
        training=TrainingConfig(
            out_dir=str(out),
            steps=STEPS,
            batch_size=2,
            lr=1e-3,
            lr_schedule="cosine",
            warmup_steps=10,
            weight_decay=0.01,
            clip_grad=5.0,
            ema_rate="0.9,0.99",
            schedule_sampler="loss-second-moment",
            log_interval=3,
            save_interval=INTERVAL,
            keep=KEEP,
            tensorboard=False,
        ),
        validation=ValidationConfig(val_interval=10, val_steps=2),
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def report_saves(path):
    """Append the step of every checkpoint to `path` once it is saved."""
    save = checkpoints.save

    def saved(out, checkpoint, keep=0):
        result = save(out, checkpoint, keep)
        if out.name == "killed":
            with path.open("a") as file:
                file.write(f"{checkpoint.step}\n")
        return result

    checkpoints.save = saved


def report_steps(pipe):
    """Tell the parent of the beginning of every step."""
    step = Trainer.train_step

    def train_step(trainer, batch):
        os.write(pipe, b".")
        return step(trainer, batch)

    Trainer.train_step = train_step


def kill_while_saving(point):
    """Die at the `point`-th file operation inside `checkpoints.save`; of a file being written, half is there."""
    inside, count = [], 0

    def reached():
        nonlocal count
        count += bool(inside)
        return inside and count == point

    def dying(function):
        def call(*args, **options):
            if reached():
                die()
            return function(*args, **options)

        return call

    save, save_file = checkpoints.save, checkpoints.save_file

    def saving(*args):
        inside.append(True)
        result = save(*args)
        inside.clear()
        return result

    def half_written(arrays, path):
        save_file(arrays, path)
        if reached():
            os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoints.save, checkpoints.save_file = saving, half_written
    for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))


def fork(child):
    """Run `child` in a fork; returns its process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def how_it_ended(pid):
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def train(out):
    discs = Discs()
    loop.train(configuration(out), discs, discs)


def warm(out):
    """Have all kernels loaded."""
    openmp, discs = ctypes.CDLL("libgomp.so.1"), Discs()
    threads = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(1)
    loop.train(with_training(configuration(out), steps=12), discs, discs)
    openmp.omp_set_num_threads(threads)


def killed_at_a_step(out, saves, step, share):
    """Train and kill from outside, a `share` of a step's time into the `step`-th step; returns how it ended."""
    here, there = os.pipe()

    def child():
        report_saves(saves)
        report_steps(there)
        train(out)

    pid = fork(child)
    os.close(there)
    begun = lasted = time.monotonic()
    for _ in range(step):
        os.read(here, 1)
        begun, lasted = time.monotonic(), time.monotonic() - begun
    time.sleep(share * min(lasted, 0.5))
    os.kill(pid, signal.SIGKILL)
    os.close(here)
    return how_it_ended(pid)


def killed_while_saving(out, saves, point):
    def child():
        report_saves(saves)
        kill_while_saving(point)
        train(out)

    return how_it_ended(fork(child))


def main(folder):
    """Both trainings, and what was found after each kill."""
    draw_nothing()
    warm(folder / "warm")
    assert how_it_ended(fork(lambda: train(folder / "whole"))) == 0
    out, saves, kills = folder / "killed", folder / "saves", []
    saves.touch()
    rng = generator("kills")
    for number in range(KILLS):
        if number % 2:
            plan = {"saving": int(rng.integers(1, 50))}
            ended = killed_while_saving(out, saves, plan["saving"])
        else:
            plan = {"step": int(rng.integers(1, 5)), "share": float(rng.random())}
            ended = killed_at_a_step(out, saves, plan["step"], plan["share"])
        saved = [int(step) for step in saves.read_text().split()]
        kills.append({**plan, "ended": ended, "saved": saved, "found": whole(out)})
    finished = how_it_ended(fork(lambda: train(out)))
    (folder / "kills.json").write_text(json.dumps({"kills": kills, "finished": finished}))


def whole(out):
    """The steps of the checkpoints that are whole, after what the next start does first, done to a copy."""
    if not out.exists():
        return []
    copy = out.with_name("copy")
    shutil.copytree(out, copy)
    checkpoints.tidy(copy)
    found = []
    for path in checkpoints.list_checkpoints(copy):
        checkpoints.load(path)  # none may be damaged
        found.append(int(path.name[5:]))
    shutil.rmtree(copy)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
