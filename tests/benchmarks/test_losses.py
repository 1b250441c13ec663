import numpy as np
import pytest

from benchmarks import losses


@pytest.fixture
def runs(tmp_path):
    folders = []
    for name, factor in (("fp32", 1.0), ("bf16", 1.01)):
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{step},{factor * 2 / step},{factor / step}" for step in range(1, 5)]
        (folder / "log.csv").write_text("\n".join(["step,loss_diff,loss_cal", *rows]) + "\n")
        folders.append(str(folder))
    return folders


def test_means_of_the_last_half_are_compared_with_the_first_run(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["losses", *runs, "--out", str(tmp_path / "docs" / "curves.png")])
    losses.main()
    said = capsys.readouterr().out
    mean = np.mean([2 / 3, 2 / 4])
    assert f"| fp32 | {mean:.5f} (+0.00%) | {mean / 2:.5f} (+0.00%) |" in said
    assert f"| bf16 | {1.01 * mean:.5f} (+1.00%) | {1.01 * mean / 2:.5f} (+1.00%) |" in said
    assert (tmp_path / "docs" / "curves.png").read_bytes().startswith(b"\x89PNG")
