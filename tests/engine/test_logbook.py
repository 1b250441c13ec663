import csv

import numpy as np

from medsegdiff.engine.logbook import COLUMNS, Logbook


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
    book.close()
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert b"loss_q0" in events.read_bytes()
