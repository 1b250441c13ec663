"""Two processes under Open MPI do what one does: the same curve, the same masks; and they end together."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.data.phantom import write_isic
from tests.e2e.sharing import DEATH, STEPS

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "2"]
NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()
KINDS = ("rich", "parts", "spoilt")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun of Open MPI is not installed"),
]


def environment(**more):
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **root, **more}


def run(words, expect=0, **more):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done


def sharing(*words):
    return [sys.executable, "-m", "tests.e2e.sharing", *words]


def rows(out):
    with (out / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def early_gradients(found):
    """Gradient norms of the first three steps; from the second on, rounding may meet another side of a LeakyReLU."""
    return [row["grad_norm"] for row in found[:3] if "grad_norm" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mpi")
    for name, start in (("one", []), ("two", MPIRUN)):
        run([*start, *sharing(*(f"{kind}={folder / name / kind}" for kind in KINDS))])
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_of_two_processes_is_that_of_one(folder, kind):
    ours, theirs = rows(folder / "two" / kind), rows(folder / "one" / kind)
    assert len(ours) == len(theirs) == {"rich": STEPS, "spoilt": 6}.get(kind, 4)
    for mine, other in zip(ours, theirs):
        assert mine.keys() == other.keys()
        assert mine["skipped"] == other["skipped"]
        for name in {"loss", "loss_diff", "vb", "loss_cal", "param_norm"} & other.keys():
            assert mine[name] == pytest.approx(other[name], rel=1e-4), (other["step"], name)
    assert early_gradients(ours)[0] == pytest.approx(early_gradients(theirs)[0], rel=1e-4)
    assert early_gradients(ours) == pytest.approx(early_gradients(theirs), rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_end_with_the_same_bits(folder, kind):
    first, second = json.loads((folder / "two" / kind / "digests.json").read_text())
    assert first == second


def test_running_statistics_are_those_of_the_whole_batch(folder):
    one, two = (checkpoints.load(folder / name / "parts" / "step-000004") for name in ("one", "two"))
    statistics = [name for name in one.arrays["model"] if name.rpartition(".")[2] in ("running_mean", "running_var")]
    assert statistics
    for name in statistics:
        np.testing.assert_allclose(two.arrays["model"][name], one.arrays["model"][name], rtol=1e-4, atol=1e-4)


def test_a_step_that_is_not_finite_in_one_process_is_skipped_by_all(folder):
    skipped = [row["skipped"] for row in rows(folder / "two" / "spoilt")]
    assert 0 < sum(skipped) < len(skipped)
    one, two = (
        [json.loads(line) for line in (folder / name / "spoilt" / "events.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    skips = [
        [(event["step"], event["images"]) for event in events if event["event"] == "skip"] for events in (one, two)
    ]
    assert skips[0] == skips[1]


def test_the_run_says_how_many_processes_there_were(folder):
    found = [json.loads((folder / name / "rich" / "run.json").read_text())["processes"] for name in ("one", "two")]
    assert found == [1, 2]


def test_a_killed_process_ends_the_job_and_the_same_command_resumes(folder):
    whole, out = folder / "two" / "rich", folder / "two" / "killed"
    process = subprocess.Popen(
        [*MPIRUN, *sharing(f"killed={out}")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, err = process.communicate(timeout=400)
    lasted = time.time() - float((out / "died").read_text())
    assert process.returncode not in (0, None)
    assert lasted < 30
    assert "signal 9" in err
    assert [int(path.name[5:]) for path in checkpoints.list_checkpoints(out)] == [DEATH // 5 * 5]
    run([*MPIRUN, *sharing(f"rich={out}")])
    assert (out / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    ours, theirs = (checkpoints.load(path / f"step-{STEPS:06d}") for path in (out, whole))
    for group, arrays in theirs.arrays.items():
        for name, array in arrays.items():
            # In squares of gradients, what is below the smallest normal number, 1.2e-38, may be flushed or not.
            allowed = 1e-36 if group == "optimizer" else 0
            np.testing.assert_allclose(
                ours.arrays[group][name], array, rtol=0, atol=allowed, err_msg=f"{group}: {name}"
            )
    assert ours.training == theirs.training


def test_an_error_of_one_process_ends_the_job_with_one_line(folder):
    done = run([*MPIRUN, *sharing(f"unreadable={folder / 'unreadable'}")], expect=2)
    assert [line for line in done.stderr.splitlines() if "error: " in line and "disc-" in line] != []
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


def test_a_weight_that_breaks_in_one_process_ends_the_job_with_one_line(folder):
    out = folder / "broken"
    done = run([*MPIRUN, *sharing(f"broken={out}")], expect=2)
    (complaint,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert f"error: step {DEATH}: training has broken the weights: out.2.bias is not finite" in complaint
    assert "Traceback" not in done.stderr
    assert [int(path.name[5:]) for path in checkpoints.list_checkpoints(out)] == [DEATH // 5 * 5]


@pytest.fixture(scope="module")
def isic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isic")
    write_isic(folder, train=4, test=5, size=64)
    return folder


def test_bad_input_is_told_once(isic, tmp_path):
    words = ["train", "--data-dir", isic, "--out-dir", tmp_path / "never", "--batch-size", "3", *NETWORK]
    done = run([*MPIRUN, sys.executable, "-m", "medsegdiff", *words], expect=2)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert complaints == ["error: --batch-size 3: must be a multiple of the 2 processes that share it"]
    assert not (tmp_path / "never").exists()


def test_a_command_for_one_process_says_so():
    done = run([*MPIRUN, sys.executable, "-m", "medsegdiff", "doctor"], expect=2)
    assert "error: doctor: runs in one process" in done.stderr


def test_masks_of_two_processes_are_those_of_one(isic, folder):
    options = "--members 2..4 --until 0.2 --batch-size 3 --steps 3 --save-members --maps --trace ISIC_9500001".split()
    words = ["-m", "medsegdiff", "sample", "--model-path", folder / "one" / "rich", "--data-dir", isic, *options]
    cache = {"MEDSEGDIFF_CACHE": str(folder / "cache")}
    run([sys.executable, *words, "--out-dir", folder / "masks-1"], OMP_NUM_THREADS="2", **cache)
    run([*MPIRUN, sys.executable, *words, "--out-dir", folder / "masks-2"], **cache)
    one, two = (
        {path.name: path.read_bytes() for path in (folder / name).glob("[!.]*") if path.name != "run.json"}
        for name in ("masks-1", "masks-2")
    )
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert len(one["images.csv"].splitlines()) == 6
    records = [json.loads((folder / name / "run.json").read_text()) for name in ("masks-1", "masks-2")]
    assert [record.pop("processes") for record in records] == [1, 2]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]


def test_a_stop_request_to_mpirun_saves_and_the_run_goes_on_with_any_number_of_processes(isic, tmp_path):
    out, cache = tmp_path / "stopped", {"MEDSEGDIFF_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "medsegdiff", "train", "--data-dir", isic, "--out-dir", out, *NETWORK]
    words += ["--batch-size", "2", "--log-interval", "1", "--steps"]
    patient = ["--mca", "odls_base_sigkill_timeout", "20"]  # seconds until mpirun, asked to end, kills
    step = 0
    for number, options, code in ((signal.SIGUSR1, [], 138), (signal.SIGTERM, patient, 1)):
        process = subprocess.Popen(
            [str(word) for word in [MPIRUN[0], *options, *MPIRUN[1:], *words, "100000"]],
            cwd=ROOT,
            env=environment(**cache),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 300
        while not (out / "log.csv").exists() or len(rows(out)) < step + 3:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        step = int(checkpoints.list_checkpoints(out)[-1].name[5:])
        assert [row["step"] for row in rows(out)] == list(range(1, step + 1))
    run([*words, step + 2], **cache)
    assert [row["step"] for row in rows(out)] == list(range(1, step + 3))
