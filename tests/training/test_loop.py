import copy
import csv
import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.data import DataConfig
from medsegdiff.kernels import precision
from medsegdiff.plots.curves import draw_progress
from medsegdiff.training import loop, picture
from medsegdiff.training import trainer as training_step
from medsegdiff.training.interruption import Interrupted
from medsegdiff.training.journal import Journal
from medsegdiff.training.logbook import Logbook
from medsegdiff.training.loop import train
from medsegdiff.training.loss_scale import LossScale
from medsegdiff.training.record import Record
from medsegdiff.training.trainer import StepResult, Trainer
from tests.training.events import shown
from tests.training.variants import with_network, with_training, with_validation


def final(out):
    return checkpoints.load(checkpoints.list_checkpoints(Path(out))[-1])


def assert_same_end(ours, theirs):
    """Both runs ended with the same bits, in weights, moments, averages, statistics and logs."""
    a, b = final(ours), final(theirs)
    assert a.arrays.keys() == b.arrays.keys()
    for group, arrays in b.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(a.arrays[group][name], array, err_msg=f"{group}: {name}")
    assert (a.step, a.training) == (b.step, b.training)
    assert (ours / "log.csv").read_bytes() == (theirs / "log.csv").read_bytes()


def steps_of(out):
    with (Path(out) / "log.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def events(out):
    return [json.loads(line) for line in (Path(out) / "events.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leaves out the picture of the curves, which takes longer than the training; `test_picture` draws it."""
    monkeypatch.setattr(picture, "draw_progress", lambda loss, dice, path: path.touch())


class Interrupting:
    """A dataset that sends this process a signal when the `at`-th image is read."""

    def __init__(self, discs, at, number=signal.SIGTERM):
        self.discs, self.at, self.number, self.count = discs, at, number, 0
        self.ids, self.fingerprint = discs.ids, discs.fingerprint

    def __len__(self):
        return len(self.discs)

    def mask(self, index):
        return self.discs.mask(index)

    def image(self, index):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), self.number)
        return self.discs.image(index)


@pytest.fixture
def config(config):
    """Of one level: what is asked here is not what the network computes, and its graphs take the time of a step."""
    return with_network(config, channel_mult="1")


@pytest.fixture
def rich(config):
    """A run in which everything that resuming must restore is at work."""
    config = with_network(config, dropout=0.1)
    options = {"lr_schedule": "cosine", "warmup_steps": 2, "clip_grad": 1.0, "weight_decay": 0.01, "decay": "matrices"}
    return with_training(config, steps=7, log_interval=3, ema_rate="0.99,0.9", seed=5, keep=0, **options)


def at(config, out):
    return with_training(config, out_dir=str(out))


def test_a_run_stopped_at_any_step_ends_with_the_same_bits_and_logs(rich, discs, tmp_path):
    whole = tmp_path / "whole"
    train(at(rich, whole), discs)
    assert steps_of(whole) == [3, 6, 7]
    for stopped in (1, 2, 3, 5):  # warming up, in the first row, where a row is full, in the next
        broken = tmp_path / f"broken-{stopped}"
        with pytest.raises(Interrupted):
            train(at(rich, broken), Interrupting(discs, 2 * stopped))
        assert final(broken).step == stopped
        train(at(rich, broken), discs)
        assert_same_end(broken, whole)


@pytest.mark.parametrize("at_image", [1, 5])
def test_what_was_learnt_is_saved_before_an_image_that_cannot_be_read_ends_the_run(rich, discs, tmp_path, at_image):
    class Vanishing(Interrupting):
        def image(self, index):
            self.count += 1
            if self.count == self.at:
                raise InputError("a.png: no such file")
            return self.discs.image(index)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with pytest.raises(InputError, match="no such file"):
        train(at(rich, broken), Vanishing(discs, at_image))
    if at_image == 1:
        assert not checkpoints.list_checkpoints(broken)
        return
    assert final(broken).step == 2
    train(at(rich, broken), discs)
    train(at(rich, whole), discs)
    assert_same_end(broken, whole)


def test_the_bar_shows_a_running_mean_of_the_loss_and_the_dice_of_validation(config, discs, monkeypatch):
    shown = []

    class Bar(loop.screen.Bar):
        def update(self):
            shown.append(dict(self.words))

    monkeypatch.setattr(loop.screen, "Bar", Bar)
    monkeypatch.setattr(picture, "draw_progress", draw_progress)
    config = with_validation(with_training(config, log_interval=1), val_interval=2, val_steps=2)
    train(config, discs, discs)
    out = Path(config.training.out_dir)
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    means = [float(words["loss"]) for words in shown]
    np.testing.assert_allclose(means, np.cumsum(losses) / np.arange(1, 5), atol=1e-4)
    assert [words.get("val_dice") for words in shown] == [None, None, *2 * [f"{float(rows[1]['val_dice']):.4f}"]]
    assert (out / "progress.png").stat().st_size > 1000


def test_a_run_made_longer_has_the_log_of_one_that_was_long_from_the_start(rich, discs, tmp_path):
    rich = with_training(rich, lr_anneal_steps=7)
    train(at(rich, tmp_path / "whole"), discs)
    short = with_training(at(rich, tmp_path / "short"), steps=4)
    train(short, discs)
    assert steps_of(tmp_path / "short") == [3, 4]
    train(at(rich, tmp_path / "short"), discs)
    assert_same_end(tmp_path / "short", tmp_path / "whole")


def test_a_complete_run_stays_as_it_is(config, discs):
    config = with_training(config, steps=3)
    out = Path(config.training.out_dir)
    train(config, discs)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix != ".jsonl"}
    assert train(config, discs) == out / "step-000003"
    run = out / "run.json"
    assert {path: path.read_bytes() for path in before if path != run} == {
        path: content for path, content in before.items() if path != run
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_request_finishes_the_step_saves_and_leaves(config, discs, number, code):
    with pytest.raises(Interrupted) as stopped:
        train(config, Interrupting(discs, 1, number))
    assert stopped.value.exit_code == code
    assert checkpoints.load_newest(Path(config.training.out_dir))[0].step == 1
    last = events(config.training.out_dir)[-1]
    assert (last["event"], last["reason"]) == ("stop", signal.Signals(number).name)


def test_the_journal_tells_what_happened(config, discs):
    with pytest.raises(Interrupted):
        train(config, Interrupting(discs, 6))
    train(config, discs)
    out = Path(config.training.out_dir)
    assert [(event["event"], event["step"]) for event in events(out)] == [
        ("start", 0),
        ("checkpoint", 2),
        ("checkpoint", 3),
        ("stop", 3),
        ("resume", 3),
        ("checkpoint", 4),
        ("stop", 4),
    ]
    assert events(out)[-1]["reason"] == "finished"
    origin = json.loads((out / "run.json").read_text())
    assert origin["dataset"]["fingerprint"] == "discs"
    assert events(out)[4]["command"] == origin["command"]


class Spoilt:
    """Discs of which some are not finite, as a broken cache or a bad conversion gives them."""

    def __init__(self, discs, bad):
        self.discs, self.bad = discs, bad
        self.ids, self.fingerprint = discs.ids, discs.fingerprint

    def __len__(self):
        return len(self.discs)

    def mask(self, index):
        return self.discs.mask(index)

    def image(self, index):
        image = self.discs.image(index)
        return image * np.float32(np.nan) if index in self.bad else image


def test_steps_that_are_not_finite_are_skipped_counted_and_written_down(config, discs):
    config = with_training(config, steps=6, log_interval=3)
    train(config, Spoilt(discs, {4}))
    out = Path(config.training.out_dir)
    skips = [event for event in events(out) if event["event"] == "skip"]
    assert len(skips) == 2  # of six steps of two images, each of the six images is in two
    assert all("disc-4" in event["images"] for event in skips)
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["skipped"]) for row in rows) == 2
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert final(out).training["updates"] == 4


def test_many_skipped_steps_in_a_row_end_training_and_name_the_images(config, discs, monkeypatch):
    monkeypatch.setattr(loop, "MOST_SKIPS", 3)
    config = with_training(config, steps=50)
    out = Path(config.training.out_dir)
    train(with_training(config, steps=2), discs)
    good = final(out)
    with pytest.raises(InputError, match=r"step 5: the loss or its gradient .* 3 steps in a row.*disc-.*clip_grad"):
        train(config, Spoilt(discs, set(range(6))))
    assert events(out)[-1]["event"] == "stop"
    assert "not a finite number" in events(out)[-1]["reason"]
    np.testing.assert_array_equal(final(out).arrays["model"]["out.2.weight"], good.arrays["model"]["out.2.weight"])
    assert checkpoints.load_newest(out)[1] == []


def contents(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "step-" in str(path)}


def test_weights_that_break_stop_the_run_at_once_and_what_was_saved_before_is_left(config, discs, monkeypatch):
    config = with_validation(with_training(config, keep=1, save_interval=1), val_interval=1, val_steps=2)
    out = Path(config.training.out_dir)
    train(with_training(config, steps=2), discs, discs)
    good = contents(out)
    words = r"^step 3: training has broken the weights: \S+ .*is not finite; lower lr"
    with monkeypatch.context() as patch, pytest.raises(InputError, match=words):
        patch.setattr(training_step, "learning_rate", lambda *_: 1e38)
        train(config, discs, discs)
    assert contents(out) == good
    assert events(out)[-1]["reason"].startswith("InputError: step 3: training has broken the weights")
    train(config, discs, discs)
    assert final(out).step == 4


def test_moments_that_break_are_not_saved(config, discs, monkeypatch):
    config = with_training(config, keep=1, save_interval=10)
    out = Path(config.training.out_dir)
    train(with_training(config, steps=2), discs)
    good, step = contents(out), Trainer.train_step

    def train_step(trainer, batch):
        result = step(trainer, batch)
        name = next(iter(trainer.optimiser.square))
        trainer.optimiser.square[name].assign(trainer.optimiser.square[name] + float("inf"))
        return result

    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"not saved: square:.* is not finite"):
        patch.setattr(Trainer, "train_step", train_step)
        train(config, discs)
    assert contents(out) == good


def test_a_run_goes_on_from_the_last_checkpoint_that_is_finite(config, discs, monkeypatch, capsys, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(at(config, whole), discs)
    train(with_training(at(config, broken), steps=2), discs)
    spoilt = checkpoints.load(broken / "step-000002")
    spoilt.step, spoilt.arrays["optimizer"]["mean:out.2.bias"][0] = 3, np.nan
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "broken", lambda arrays: "")
        checkpoints.save(broken, spoilt)
    capsys.readouterr()
    train(at(config, broken), discs)
    said = capsys.readouterr().err
    assert "step-000003/optimizer.safetensors: cannot be used: mean:out.2.bias is not finite" in said
    assert "step-000002" in said.partition("continuing from")[2]
    checkpoints.remove(broken / "step-000003")
    assert_same_end(broken, whole)


def test_a_run_whose_every_step_was_skipped_is_an_error_and_leaves_no_checkpoint(config, discs):
    config = with_validation(with_training(config, steps=4, save_interval=2), val_interval=2, val_steps=2)
    out = Path(config.training.out_dir)
    with pytest.raises(InputError, match=r"^step 4: nothing is learnt, and nothing saved: .*disc-.*; look at them$"):
        train(config, Spoilt(discs, set(range(6))), discs)
    assert checkpoints.list_checkpoints(out) == []
    assert not (out / "best").exists()
    assert steps_of(out) == [2, 4]
    train(config, discs)
    assert final(out).step == 4


def test_a_resumed_run_whose_every_step_was_skipped_is_an_error_too(config, discs):
    config = with_training(config, steps=2, save_interval=2)
    train(config, discs)
    out = Path(config.training.out_dir)
    with pytest.raises(InputError, match=r"^step 5: nothing is learnt"):
        train(with_training(config, steps=5), Spoilt(discs, set(range(6))))
    assert [path.name for path in checkpoints.list_checkpoints(out)] == ["step-000002"]
    assert train(config, discs).name == "step-000002"  # with nothing left to do


def test_no_checkpoint_follows_a_step_that_was_skipped(config, discs, monkeypatch):
    config = with_training(config, steps=4, save_interval=1, keep=1)
    step = Trainer.train_step

    def failing(self, batch):
        if self.step < 1:
            return step(self, batch)
        spoilt = batch._replace(images=batch.images * np.float32(np.nan))
        return step(self, spoilt)

    monkeypatch.setattr(Trainer, "train_step", failing)
    monkeypatch.setattr(loop, "MOST_SKIPS", 3)
    with pytest.raises(InputError, match="in 3 steps in a row"):
        train(config, discs)
    assert [path.name for path in checkpoints.list_checkpoints(Path(config.training.out_dir))] == ["step-000001"]


def test_a_run_that_ends_on_a_skipped_step_takes_no_other_s_place(config, discs, monkeypatch):
    """Its weights may be what made the step fail."""
    config = with_training(config, steps=3, save_interval=1, keep=1)
    step = Trainer.train_step

    def failing(self, batch):
        return step(self, batch._replace(images=batch.images * np.float32(np.nan)) if self.step == 2 else batch)

    monkeypatch.setattr(Trainer, "train_step", failing)
    assert train(config, discs).name == "step-000003"
    out = Path(config.training.out_dir)
    assert [path.name for path in checkpoints.list_checkpoints(out)] == ["step-000002", "step-000003"]
    monkeypatch.undo()
    train(with_training(config, steps=4), discs)
    assert [path.name for path in checkpoints.list_checkpoints(out)] == ["step-000004"]


def test_one_image_at_a_time_is_refused_before_anything_is_written(config, discs):
    with pytest.raises(InputError, match="microbatch 1: batch norm cannot train on one image of 32 x 32 pixels"):
        train(with_training(config, microbatch=1), discs)
    assert not Path(config.training.out_dir).exists()


def test_training_gives_up_at_the_twentieth_failure_in_a_row(config, discs, monkeypatch):
    failing = iter([True] * 19 + [False] + [True] * 40)

    def step(self, batch):
        self.step += 1
        skipped = next(failing)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        self.optimiser.count += not skipped
        total = math.nan if skipped else 1.0
        losses = {"loss": np.float32([total]), "loss_diff": np.float32([total]), "loss_cal": np.float32([total])}
        return StepResult(losses, np.zeros(1, int), total, {"grad_norm": total, "param_norm": 1.0}, skipped)

    monkeypatch.setattr(Trainer, "train_step", step)
    with pytest.raises(InputError, match=r"^step 40: .* not a finite number in 20 steps in a row"):
        train(with_training(config, steps=50), discs)


@pytest.fixture
def validated(config):
    config = with_validation(config, val_interval=2, val_steps=2)
    return with_training(config, steps=6, keep=1, save_interval=4, log_interval=3, lr=3e-3)


class Scores:
    """Gives validations a Dice of our choice."""

    def __init__(self, monkeypatch, *dices):
        self.dices, self.seen = list(dices), []
        original = loop.Validator.__call__

        def validate(validator, *given):
            outcome = original(validator, *given)
            self.seen.append(outcome.dice)
            return outcome._replace(dice=self.dices.pop(0)) if self.dices else outcome

        monkeypatch.setattr(loop.Validator, "__call__", validate)


def test_the_best_checkpoint_is_kept_apart(validated, discs, monkeypatch):
    Scores(monkeypatch, 0.5, 0.7, 0.6)
    train(validated, discs, discs)
    out = Path(validated.training.out_dir)
    assert [path.name for path in checkpoints.list_checkpoints(out)] == ["step-000006"]
    assert [path.name for path in checkpoints.list_checkpoints(out / "best")] == ["step-000004"]
    best = checkpoints.load(out / "best" / "step-000004")
    assert best.training["validation"] == {"last": 4, "best": 0.7, "best_step": 4, "stale": 0}
    assert load_weights(out / "best").source.endswith("step-000004/ema-0.9999.safetensors")
    with (out / "log.csv").open() as file:
        assert [(row["step"], row["val_dice"]) for row in csv.DictReader(file)] == [("3", "0.5"), ("6", "0.6")]
    assert sorted(path.name for path in (out / "samples").iterdir()) == [f"step-00000{k}.png" for k in (2, 4, 6)]
    found = [(event["event"], event["step"]) for event in events(out)]
    assert found[1:4] == [("validation", 2), ("checkpoint", 2), ("best", 2)]


def test_training_stops_when_validation_no_longer_improves_and_stays_stopped(validated, discs, monkeypatch):
    Scores(monkeypatch, 0.5, 0.4, 0.5)
    config = with_training(with_validation(validated, patience=2), steps=20)
    out = Path(config.training.out_dir)
    for _ in range(2):
        assert train(config, discs, discs) == out / "step-000006"
        assert events(out)[-1]["reason"] == "patience"
    assert len([event for event in events(out) if event["event"] == "validation"]) == 3
    assert [path.name for path in checkpoints.list_checkpoints(out / "best")] == ["step-000002"]
    train(with_validation(config, patience=0), discs, discs)
    assert final(out).step == 20


def test_what_was_learnt_is_saved_before_a_validation_that_cannot_be_done(validated, discs, monkeypatch):
    def fails(*_):
        raise InputError("a.png: no such file")

    monkeypatch.setattr(loop.Validator, "__call__", fails)
    with pytest.raises(InputError, match="no such file"):
        train(validated, discs, discs)
    assert final(validated.training.out_dir).step == validated.validation.val_interval


def test_validation_does_not_disturb_training(validated, discs, tmp_path):
    train(at(validated, tmp_path / "with"), discs, discs)
    train(at(with_validation(validated, val_interval=0), tmp_path / "without"), discs)
    ours, theirs = final(tmp_path / "with"), final(tmp_path / "without")
    for group, arrays in theirs.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours.arrays[group][name], array, err_msg=f"{group}: {name}")


@pytest.mark.parametrize("image", [3, 4, 9])
def test_a_validated_run_that_was_stopped_ends_with_the_same_bits_logs_and_best(validated, discs, tmp_path, image):
    """The 3rd image stops the second step, whose validation is then still due; 4 and 9 come while validating."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(at(validated, whole), discs, discs)
    training_images = 4
    with pytest.raises(Interrupted):
        if image <= 3:
            train(at(validated, broken), Interrupting(discs, image), discs)
        else:
            train(at(validated, broken), discs, Interrupting(discs, image - training_images + 1))
    train(at(validated, broken), discs, discs)
    assert_same_end(broken, whole)
    for folder in ("best", "samples"):
        assert [p.name for p in sorted((broken / folder).iterdir())] == [
            p.name for p in sorted((whole / folder).iterdir())
        ]


def test_a_resumed_run_shows_every_number_on_tensorboard(validated, discs, tmp_path, monkeypatch):
    """A crash in step 3: the checkpoint of step 2 has a validation and no row yet."""
    validated = with_training(validated, tensorboard=True, steps=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(at(validated, whole), discs, discs)
    step = Trainer.train_step

    def crash(trainer, batch):
        if trainer.step == 2:
            raise KeyboardInterrupt
        return step(trainer, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", crash)
        train(at(validated, broken), discs, discs)
    train(at(validated, broken), discs, discs)
    assert "val_dice" in shown(whole)[2]
    assert shown(broken) == shown(whole)


def test_what_a_kill_left_half_written_is_cleared_away(validated, discs):
    out, name = Path(validated.training.out_dir), "0a" * 16
    train(with_training(validated, steps=2), discs, discs)
    left = [out / f".config.yaml.{name}.tmp", out / "best" / f".x.{name}.tmp", out / "samples" / f".x.{name}.tmp"]
    for path in left:
        path.touch()
    train(with_training(validated, steps=2), discs, discs)
    assert [path for path in left if path.exists()] == []


def test_the_log_is_closed_though_the_journal_cannot_be_written(config, discs, monkeypatch):
    closed = []
    note = Journal.note

    def full(journal, event, *given, **details):
        if event == "stop":
            raise OSError(28, "No space left on device")
        note(journal, event, *given, **details)

    monkeypatch.setattr(Journal, "note", full)
    monkeypatch.setattr(Logbook, "close", lambda book: closed.append(book))
    train(with_training(config, steps=1), discs)
    assert len(closed) == 1


def test_the_leader_tells_its_followers_when_all_is_saved(config, discs, monkeypatch):
    told, out = [], Path(config.training.out_dir)

    def tell(value):
        told.append((value, [path.name for path in checkpoints.list_checkpoints(out)]))
        return value

    monkeypatch.setattr(loop.exchange, "tell", tell)
    train(with_training(config, steps=1), discs)
    assert told[-2:] == [([False, False], []), (None, ["step-000001"])]


def test_a_best_checkpoint_that_a_crash_prevented_is_made_up_for(validated, discs, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    out = Path(validated.training.out_dir)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Record, "keep_best", crash)
        train(validated, discs, discs)
    assert not (out / "best").exists()
    train(with_training(validated, steps=2), discs, discs)
    assert [path.name for path in checkpoints.list_checkpoints(out / "best")] == ["step-000002"]


def test_other_images_are_refused(config, discs):
    train(with_training(config, steps=1), discs)
    others = copy.copy(discs)
    others.fingerprint = "others"
    with pytest.raises(InputError, match="other images or masks; give the same data, or"):
        train(config, others)
    with pytest.raises(InputError, match=r"the same share held out: val_interval 0, not 5"):
        train(with_validation(config, val_interval=5), others, discs)
    elsewhere = dataclasses.replace(config, data=DataConfig(data_dir="elsewhere", labels="1,2"))
    with pytest.raises(InputError, match=r'other images or masks; give the same data \(and labels "", not 1,2\), or'):
        train(elsewhere, others)


def test_another_configuration_is_refused_and_named(config, discs):
    train(with_training(config, steps=1), discs)
    with pytest.raises(InputError, match="num_res_blocks 1, not 2"):
        train(with_network(config, num_res_blocks=2), discs)


def test_options_that_change_what_is_learnt_are_named_when_a_run_goes_on_with_others(config, discs, capsys):
    train(with_training(config, steps=1), discs)
    capsys.readouterr()
    train(with_training(config, steps=2, lr=0.5, clip_grad=2.0, keep=7), discs)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == ["note: continuing with lr 0.5, was 0.001", "note: continuing with clip_grad 2.0, was 0.0"]


def test_a_schedule_that_ends_elsewhere_is_named_though_no_option_of_its_own_changed(config, discs, capsys):
    falling = with_training(config, lr_schedule="cosine", steps=1)
    train(falling, discs)
    capsys.readouterr()
    train(with_training(falling, steps=2, use_checkpoint=True), discs)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: continuing with use_checkpoint True, was False",
        "note: the learning rate now falls to 0 at step 2, not 1",
    ]


def test_steps_that_learn_nothing_are_told(config, discs, capsys):
    for annealed, said in ((0, False), (1, True), (2, False)):
        train(
            with_training(config, steps=2, lr_anneal_steps=annealed, out_dir=f"{config.training.out_dir}-{annealed}"),
            discs,
        )
        assert ("note: from step 1 on the learning rate is 0, and nothing is learnt" in capsys.readouterr().err) == said


def test_a_disk_without_room_for_the_checkpoints_is_told_before_any_work(config, discs, capsys, monkeypatch):
    config = with_training(config, steps=3, save_interval=1, keep=2)
    last = train(with_training(config, steps=1), discs)
    each = sum(file.stat().st_size for file in last.glob("*.safetensors"))
    room = [10 * each, 0, each // 2]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(InputError, match=r"each checkpoint takes \d+ MiB there, and \d+ MiB are free; free some"):
        train(config, discs)
    assert train(with_training(config, steps=1), discs) == last  # which has no more to write
    for free, said in ((1.5, True), (2.5, False)):
        room[2] = int(free * each)
        capsys.readouterr()
        train(config, discs)
        assert ("that this training will want" in capsys.readouterr().err) == said
        shutil.rmtree(config.training.out_dir)
        train(with_training(config, steps=1), discs)


def test_a_run_of_damaged_checkpoints_is_not_begun_anew_over_them(config, discs, capsys):
    last = train(with_training(config, steps=1), discs)
    (last / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="none of its checkpoints can be used"):
        train(config, discs)
    assert "model.safetensors" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(config, discs, capsys, tmp_path):
    train(at(config, tmp_path / "whole"), discs)
    broken = tmp_path / "broken"
    train(with_training(at(config, broken), steps=3), discs)
    (broken / "step-000003" / "optimizer.safetensors").write_bytes(b"")
    capsys.readouterr()
    train(at(config, broken), discs)
    said = capsys.readouterr().err
    assert "skipped: " in said
    assert "step-000003/optimizer.safetensors: the file is empty" in said
    assert "continuing from" in said
    assert_same_end(broken, tmp_path / "whole")


def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoints(config, discs, monkeypatch):
    train(with_training(config, steps=2), discs)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(InputError, match="no space left"):
        train(config, discs)
    out = Path(config.training.out_dir)
    assert [path.name for path in out.iterdir() if path.name.endswith(".tmp")] == []
    assert checkpoints.load_newest(out)[0].step == 2


def test_a_folder_in_use_is_refused_before_anything_is_changed(config, discs, monkeypatch):
    def busy(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("medsegdiff.base.files.system.lock", busy)
    monkeypatch.setattr(loop, "Trainer", None)
    with pytest.raises(InputError, match="another process works there"):
        train(config, discs)


def test_a_run_from_before_validation_is_continued(config, discs):
    """Its state knows neither updates nor rows, and its options not all of today's."""
    path = train(with_training(config, steps=2), discs)
    state = json.loads((path / "state.json").read_text())
    for name in ("updates", "skipped_in_a_row", "row", "validation"):
        del state["training"][name]
    del state["format"], state["checksum"]
    (path / "state.json").write_text(json.dumps(state, indent=1))
    train(config, discs)
    assert steps_of(config.training.out_dir) == [2, 4]
    assert final(config.training.out_dir).training["updates"] == 4


def test_parity_and_others_may_bring_their_own_network(config):
    network = Trainer(config).network
    assert Trainer(config, network).network is network


def test_a_precision_that_the_machine_lacks_is_refused_before_anything_is_written(config, discs, monkeypatch):
    monkeypatch.setattr(precision, "unavailable", lambda name: "not here; use fp32")
    with pytest.raises(InputError, match=r"^precision bf16: not here; use fp32$"):
        train(with_training(config, precision="bf16"), discs)
    assert not Path(config.training.out_dir).exists()
    with pytest.raises(InputError, match="precision half: must be one of fp32, bf16, fp16"):
        with_training(config, precision="half")
    with pytest.raises(InputError, match="fp16_scale_growth 2"):
        with_training(config, fp16_scale_growth=2)


def test_steps_that_find_the_loss_scale_do_not_end_training(config, discs, monkeypatch):
    class Overflowing(Trainer):
        def __init__(self, config):
            super().__init__(config)
            self.loss_scale = LossScale(0, 2.0**126)

    monkeypatch.setattr(loop, "Trainer", Overflowing)
    monkeypatch.setattr(loop, "MOST_SKIPS", 1)
    config = with_training(config, steps=40, log_interval=40, save_interval=40)
    train(config, discs)
    out = Path(config.training.out_dir)
    skips = [event["loss_scale"] for event in events(out) if event["event"] == "skip"]
    assert skips == [2.0 ** (125 - k) for k in range(len(skips))]
    assert skips
    with (out / "log.csv").open() as file:
        assert [int(row["skipped"]) for row in csv.DictReader(file)] == [len(skips)]
    saved = final(out).training
    assert (saved["updates"], saved["loss_scale"]["value"]) == (40 - len(skips), skips[-1])


def test_a_run_goes_on_in_another_precision_and_says_so(config, discs, precisions_seen, capsys):
    out = Path(config.training.out_dir)
    train(with_training(config, steps=2), discs)
    assert json.loads((out / "run.json").read_text())["precision"] == "fp32"
    assert set(precisions_seen) == {"fp32"}
    precisions_seen.clear()
    capsys.readouterr()
    train(with_training(config, steps=3, precision="bf16"), discs)
    assert set(precisions_seen) == {"bf16"}
    assert "note: continuing with precision bf16, was fp32\n" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["precision"] == "bf16"
    assert {a.dtype.name for arrays in final(out).arrays.values() for a in arrays.values()} == {"float32"}
