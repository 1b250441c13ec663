import csv

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.training.logbook import COLUMNS, Logbook
from tests.training.events import shown


def rows(path):
    with (path / "log.csv").open() as file:
        return list(csv.DictReader(file))


def note(book, losses, t, grad_norm=1.0):
    book.add({"loss": np.array(losses)}, np.array(t), 100, {"grad_norm": grad_norm})


def test_a_row_holds_means_over_samples_and_quarters_of_the_schedule(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    note(book, [1.0, 3.0], [0, 24], grad_norm=2.0)
    note(book, [5.0, 7.0], [25, 99], grad_norm=4.0)
    book.write(step=2, samples=4)
    (row,) = rows(tmp_path)
    assert list(row) == list(COLUMNS)
    assert (row["step"], row["samples"], row["loss"], row["grad_norm"]) == ("2", "4", "4", "3")
    assert [row[f"loss_q{q}"] for q in range(4)] == ["2", "5", "", "7"]


def test_each_row_begins_anew(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    for step, loss in ((1, 1.0), (2, 5.0)):
        note(book, [loss], [0])
        book.write(step, step)
    assert [row["loss"] for row in rows(tmp_path)] == ["1", "5"]


def test_a_resumed_log_neither_repeats_nor_misses_a_row(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    losses = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    for folder in (straight, broken):
        folder.mkdir()
        book = Logbook(folder, tensorboard=False)
        for step, loss in enumerate(losses, 1):
            note(book, [loss], [0])
            if step % 2 == 0:
                book.write(step, step)
            if folder is broken and step == 3:
                saved = book.state()
            if folder is broken and step == 5:
                break
    with (broken / "log.csv").open("a") as file:
        file.write("4,4")  # a row cut off by a crash
    book = Logbook(broken, tensorboard=False)
    book.resume(3, saved)
    for step in (4, 5, 6):
        note(book, [losses[step - 1]], [0])
        if step % 2 == 0:
            book.write(step, step)
    assert (broken / "log.csv").read_bytes() == (straight / "log.csv").read_bytes()


def test_tensorboard_gets_the_same_numbers(tmp_path):
    book = Logbook(tmp_path, tensorboard=True)
    note(book, [2.5], [0])
    book.write(1, 1)
    assert shown(tmp_path)[1] == {"loss": 2.5, "loss_q0": 2.5, "grad_norm": 1.0, "skipped": 0.0}
    book.close()


def test_skipped_steps_are_counted_and_do_not_touch_the_means(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    book.skip()
    note(book, [3.0], [0])
    book.skip()
    book.write(3, 3)
    note(book, [5.0], [0])
    book.write(4, 4)
    assert [(row["loss"], row["skipped"]) for row in rows(tmp_path)] == [("3", "2"), ("5", "0")]


def test_only_a_validated_run_has_a_column_for_it(tmp_path):
    book = Logbook(tmp_path, tensorboard=False, validated=True)
    picture = np.zeros((2, 2, 3), np.uint8)
    book.validate(1, 0.25, picture)
    book.write(1, 1)
    book.write(2, 2)
    assert [row["val_dice"] for row in rows(tmp_path)] == ["0.25", ""]
    assert "val_dice" not in COLUMNS


def test_a_run_that_stops_validating_keeps_the_column_and_one_that_starts_gets_it(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    book.write(1, 1)
    book = Logbook(tmp_path, tensorboard=False, validated=True)
    book.resume(1, {})
    book.validate(2, 0.5, np.zeros((2, 2, 3), np.uint8))
    book.write(2, 2)
    book = Logbook(tmp_path, tensorboard=False)
    book.resume(2, {})
    book.write(3, 3)
    assert [(row["step"], row["val_dice"]) for row in rows(tmp_path)] == [("1", ""), ("2", "0.5"), ("3", "")]


@pytest.mark.parametrize("torn", ["", "step,sam", ",".join(COLUMNS) + "\n", ",".join(COLUMNS) + "\n1,8,0.5"])
def test_a_log_cut_short_before_its_first_row_begins_anew(tmp_path, torn):
    (tmp_path / "log.csv").write_text(torn)
    book = Logbook(tmp_path, tensorboard=False)
    book.resume(0, {})
    note(book, [1.0], [0])
    book.write(1, 1)
    (row,) = rows(tmp_path)
    assert list(row) == list(COLUMNS)
    assert row["loss"] == "1"


def test_a_dice_loss_has_columns_and_its_sums_outlive_a_training_without(tmp_path):
    book = Logbook(tmp_path, tensorboard=False, dice=True)
    book.add({"loss_dice": np.array([0.5, 0.25])}, np.array([0, 99]), 100, {})
    saved = book.state()
    book.write(1, 2)
    (row,) = rows(tmp_path)
    assert list(row) == [*COLUMNS, "loss_dice", *(f"loss_dice_q{q}" for q in range(4))]
    assert (row["loss_dice"], row["loss_dice_q0"], row["loss_dice_q3"]) == ("0.375", "0.5", "0.25")
    (tmp_path / "log.csv").unlink()
    resumed = Logbook(tmp_path, tensorboard=False)
    resumed.resume(0, saved)
    resumed.write(1, 2)
    assert rows(tmp_path)[0]["loss_dice"] == "0.375"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00rubbish\n", b"step,x\nabc,d\n", b"x\n1\n", b'step\n"1\n', b"step,x\n,\n", b"mine\n"]
)
def test_a_log_of_another_kind_is_named_and_kept(tmp_path, content):
    book = Logbook(tmp_path, tensorboard=False)
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"log\.csv: (not UTF-8|is not the log that a training writes)"):
        book.resume(1, {})
    assert (tmp_path / "log.csv").read_bytes() == content


def test_an_empty_log_begins_anew(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    (tmp_path / "log.csv").touch()
    book.resume(1, {})
    book.write(2, 2)
    assert [row["step"] for row in rows(tmp_path)] == ["2"]
