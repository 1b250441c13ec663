import numpy as np
import pytest

from benchmarks import published_curve


def test_our_steps_are_put_into_their_rows_and_beside_them(tmp_path, monkeypatch):
    trained = []

    def train(config):
        trained.append(config)
        (tmp_path / "work").mkdir()
        write(tmp_path / "work" / "log.csv", np.arange(1, 102), np.arange(101.0))

    def write(path, steps, values):
        names = ("step", *published_curve.COLUMNS)
        lines = [",".join(map(str, [step, *[value + 1] * (len(names) - 1)])) for step, value in zip(steps, values)]
        path.write_text("\n".join([",".join(names), *lines]) + "\n")

    monkeypatch.setattr(published_curve.medsegdiff, "train", train)
    for name in published_curve.PUBLISHED:
        write(tmp_path / name, [0, 100, 200], [7, 8, 9])
    folders = {"--logs": tmp_path, "--work": tmp_path / "work", "--out": tmp_path / "out"}
    published_curve.main(["--data-dir", "d", *(str(word) for pair in folders.items() for word in pair)])
    (config,) = trained
    assert (config.network.learn_sigma, config.training.batch_size, config.diffusion.predict_xstart) == (
        False,
        16,
        False,
    )
    assert (tmp_path / "out" / "curve.png").stat().st_size > 1000
    table = [line.split(" | ") for line in (tmp_path / "out" / "README.md").read_text().splitlines() if "| " in line]
    found = {(row[0].strip("| "), row[1]): float(row[2]) for row in table[2:]}
    theirs = {(step, label): value for step, value in (("0", 8), ("100", 9)) for label in ("published, Jittor",)}
    assert found.items() >= theirs.items()
    assert found["0", "this package"] == 1  # the first step alone
    assert found["100", "this package"] == pytest.approx(np.arange(2, 102).mean(), rel=1e-3)
